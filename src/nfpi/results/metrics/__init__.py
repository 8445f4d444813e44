"""Metrics: their registry, and those of the package."""
