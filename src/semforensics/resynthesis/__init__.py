"""Images from outside the trainings of the classifiers: re-synthesised, processed, diffused."""
