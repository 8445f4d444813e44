"""Metrics of the user's own: `register_metric`, and the entry of each metric there is."""

from nfpi.config.metrics import Metric, metric, register_metric

__all__ = ["Metric", "metric", "register_metric"]
