"""The command line: paths, parameters and options in, one call, one line out."""
