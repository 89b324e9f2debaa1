"""Reals and fakes to verdicts."""
