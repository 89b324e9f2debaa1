"""Tests of a detector: metrics, baselines, robustness, false alarms, shortcuts, explanations."""
