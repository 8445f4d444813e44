"""Explanations of metrics on a page."""

from __future__ import annotations

from collections.abc import Iterable

from nfpi.config.metrics import METRICS, metric

WEIGHT = (
    "λ: weight of the repulsion between classes; at 0 (baseline) there is none, and Gaussians keep their initial "
    "values unless they are learned with the flow."
)
"""Explanation of λ."""


def explain_metrics(names: Iterable[str]) -> list[str]:
    """Return a sentence for each of these metrics that has a meaning, in the order of the registry."""
    wanted = set(names)
    metrics = [metric(name) for name in METRICS if name in wanted]
    return [f"{each.label}: {each.meaning}." for each in metrics if each.meaning]
