"""Perceptual distance: trunks, LPIPS and its embedding."""
