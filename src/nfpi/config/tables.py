"""Check that some row of each table has each of its metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nfpi.config.base import ALL_INHERITED, ConfigError
from nfpi.config.claims import DIVERGENCE
from nfpi.config.experiments import Experiment
from nfpi.config.metrics import MeasuredModel, metric
from nfpi.config.settings import Config

_OWNERS: dict[MeasuredModel | None, str] = {
    "flow": "flows have",
    "generated": "classifiers trained on generated images have",
    "real": "classifiers trained on real images have",
    None: "claims compare",
}
"""Who has the metrics of each :attr:`Metric.model`, for messages; None: the metric of claims (DIVERGENCE)."""


def check_metrics(config: Config, layers: Iterable[Mapping[str, Any]]) -> None:
    """Check that some row of each table has each of its metrics.

    If a table's metrics are inherited or the defaults, and a later layer of settings replaces its experiments, columns
    of metrics that no row has are left out instead; at least one column must remain.

    Args:
        config: the settings.
        layers: the raw settings that were merged into them, in order.

    Raises:
        ConfigError: no row has a metric.
    """
    layers = list(layers)
    for table, settings in config.tables.items():
        models = {model for experiment in settings.experiments for model in _list_models(config, experiment)}
        missing = [name for name in settings.metrics if not _has_metric(models, name)]
        if missing and (len(missing) == len(settings.metrics) or _are_chosen_for_experiments(table, layers)):
            owner = _OWNERS[metric(missing[0]).model]
            raise ConfigError(
                f"tables.{table}.metrics: expected metrics that a row of the table has, received {missing[0]}, "
                f"which only {owner}"
            )


def _list_models(config: Config, experiment: Experiment) -> list[MeasuredModel]:
    """Return the kinds of models whose metrics the rows of an experiment show."""
    if config.learns_from_real_images(experiment):
        return ["real"]
    return ["flow"] if experiment.classifier is None else ["flow", "generated"]


def _has_metric(models: Iterable[MeasuredModel], name: str) -> bool:
    """Return whether one of these kinds of models has a metric."""
    model = metric(name).model
    return model in models if model is not None else name != DIVERGENCE


def _are_chosen_for_experiments(table: str, layers: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether the metrics of a table were set in the layer that set its experiments, or in a later one."""
    last = dict.fromkeys(("metrics", "experiments"), -1)
    for index, layer in enumerate(layers):
        tables = layer.get("tables") or {}
        block = tables.get(table)
        if ALL_INHERITED in tables or (table in tables and block is None):
            last = dict.fromkeys(last, -1)
        last |= {key: index for key in last if key in (block or {})}
    return last["metrics"] >= last["experiments"]
