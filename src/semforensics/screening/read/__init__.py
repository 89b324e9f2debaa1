"""Read files from outside as pictures."""
