"""Tests of cropping and splitting."""
