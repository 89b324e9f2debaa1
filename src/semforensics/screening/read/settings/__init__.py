"""Microscope settings that instruments write into a file or beside it."""
