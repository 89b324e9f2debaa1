"""semforensics: find AI-generated scanning-electron micrographs."""
