"""The classifier of real and fake micrographs, with its calibration."""
