"""Ground that every step stands on: files, images, checkpoints, devices, trainings."""
