"""Crops to generators to fakes."""
