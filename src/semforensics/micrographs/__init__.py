"""Raw micrographs to crops to splits."""
