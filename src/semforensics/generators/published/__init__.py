"""Autoencoders that others have published: they leave the traces of public image models."""
