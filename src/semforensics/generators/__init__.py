"""Generators of fake micrographs, trained on real ones."""
