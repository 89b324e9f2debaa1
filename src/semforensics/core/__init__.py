"""What every step needs: files, images, checkpoints, devices, trainings."""
