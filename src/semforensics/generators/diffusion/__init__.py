"""A small diffusion model."""
