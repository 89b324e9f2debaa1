"""Trials are tested on the small data sets of the detector's tests."""

from tests.detector.conftest import folders

__all__ = ["folders"]
