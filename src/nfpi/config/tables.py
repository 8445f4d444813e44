"""What tables print of their experiments: the columns that tell rows apart, and the metrics that some row has."""

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


def select_printed_properties(columns: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the properties that a table prints to identify its rows, besides their labels, data sets and λ.

    `flow` is printed if there are several flows, unless the labels determine it; `prior`, `classifier` and
    `augmentation` each if rows differ in it and some row has no label.

    Args:
        columns: `row` (the label), `flow`, `prior`, `classifier` and `augmentation` of each row, except rows of cited
            work; an empty text: the row has none.
    """
    labels, flows = columns["row"], columns["flow"]
    follows_from_labels = all(labels) and len(set(zip(labels, flows, strict=True))) == len(set(labels))
    printed = ["flow"] if len(set(flows) - {""}) > 1 and not follows_from_labels else []
    if not all(labels):
        printed += [name for name in ("prior", "classifier", "augmentation") if len(set(columns[name])) > 1]
    return printed


def check_rows(config: Config) -> None:
    """Check that the rows of each table differ in what it prints of their experiments.

    Raises:
        ConfigError: two rows do not.
    """
    for table, settings in config.tables.items():
        rows = [_list_properties(experiment) for experiment in settings.experiments]
        printed = select_printed_properties({name: [row[name] for row in rows] for name in rows[0]})
        known: dict[tuple[Any, ...], int] = {}
        for index, (experiment, row) in enumerate(zip(settings.experiments, rows, strict=True)):
            for weight in experiment.weights if experiment.lambdas else [None]:
                identity = (experiment.label, experiment.dataset, weight, *(row[name] for name in printed))
                first = known.setdefault(identity, index)
                if first != index:
                    label = f"label '{experiment.label}'" if experiment.label else "no label"
                    label += f" on '{experiment.dataset}'" + ("" if weight is None else f" with λ = {weight:g}")
                    raise ConfigError(
                        f"tables.{table}.experiments.{index}: expected a row that can be told apart from that of "
                        f"experiments.{first}, received {label} in both: set another label"
                    )


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


def _list_properties(experiment: Experiment) -> dict[str, str]:
    """Return the properties of an experiment that its rows may show, as they are printed."""
    return {
        "row": experiment.label,
        "flow": experiment.flow if experiment.prior is not None else "",
        "prior": experiment.prior or "",
        "classifier": experiment.classifier or "",
        "augmentation": experiment.augmentation if experiment.classifier is not None else "",
    }


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
