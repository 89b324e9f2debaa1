"""Autoencoders and super-resolvers that others have published: traces of public image models."""
