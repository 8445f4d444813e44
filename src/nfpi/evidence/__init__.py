"""Metrics and predictions of the runs of a preset, kept small enough to be committed, and what is rebuilt from them."""
