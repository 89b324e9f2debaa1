"""Metrics to figures."""
