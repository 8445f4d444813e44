"""Metrics: their registration and look-up, and those of the package."""

from nfpi.config.base import ConfigError
from nfpi.config.metrics import Metric, metric, register_metric

__all__ = ["Metric", "find_metric", "metric", "register_metric"]


def find_metric(name: str) -> Metric:
    """Return a metric; one that is not registered gets its name as label."""
    try:
        return metric(name)
    except ConfigError:
        return Metric(name, label=name, decimals=3)
