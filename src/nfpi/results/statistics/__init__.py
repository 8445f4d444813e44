"""Confidence intervals, and significance tests over seeds and test images."""
