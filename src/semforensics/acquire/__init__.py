"""Raw micrographs and their catalogue."""
