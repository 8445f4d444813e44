"""Registration and look-up of metrics."""

from nfpi.config.metrics import Metric, metric, register_metric

__all__ = ["Metric", "metric", "register_metric"]
