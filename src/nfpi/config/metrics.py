"""Registry of metrics: label, unit, decimals and direction of each, for tables, figures and claims."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from nfpi.config.base import ConfigError, Settings, suggest
from nfpi.config.registry import Registry

GENERATED_PREFIX = "cnn_"
"""Prefix of metrics of classifiers that are trained on generated images."""
VALIDATION_PREFIX = "validation_"
"""Prefix of metrics measured on the validation split."""

ACCURACIES = {"nf_acc": "flow", "cnn_acc": "classifier", "top1": "classifier"}
"""Accuracies that can be computed per image from predictions.npz, and the kind of model that makes them."""

METRICS = Registry("metric", "register_metric", ("log_prob", "labels"), package="nfpi.results.metrics")
"""Builders compute a metric: (log_prob (N, K), labels (N,)) → float; metrics recorded by a stage have no builder. Those
of the project are registered where they are defined, in :mod:`nfpi.results.metrics`.
Trait: `metric`, its :class:`Metric`."""


Builder = TypeVar("Builder", bound=Callable[..., float])
MeasuredModel = Literal["flow", "generated", "real"]
"""The model that a metric is of: a flow, or a classifier trained on generated or on real images."""


@dataclass(frozen=True)
class Metric:
    """What a metric measures, and how it is shown.

    Attributes:
        name: name of its column.
        label: text of its heading.
        unit: unit; empty: dimensionless.
        higher_is_better: direction; None: neither is better.
        decimals: maximum number of decimals in a table.
        is_share: whether it is a percentage of the test images, like an accuracy; a single value then has a binomial
            confidence interval.
        model: the only kind of model that has it; None: computed for each kind, derived from the seeds
            (`divergence`), or recorded by the user's code.
        meaning: what it measures, without its label and a full stop; empty: not explained.
    """

    name: str
    label: str
    unit: str = ""
    higher_is_better: bool | None = None
    decimals: int = 1
    is_share: bool = False
    model: MeasuredModel | None = None
    meaning: str = ""

    @property
    def is_time(self) -> bool:
        """Whether it is a measured time, which varies between executions."""
        return self.unit in ("h", "s")


def metric(name: str) -> Metric:
    """Return the metric of this name.

    For every computed metric x, `cnn_x` is its value for a classifier trained on generated images, and `validation_x`
    its value for a flow on the validation split.

    Raises:
        ConfigError: unknown metric.
    """
    base = find_registered_name(name)
    if base not in METRICS:
        computed = [known for known in METRICS if METRICS[known].builder is not None]
        derived = [f"{prefix}{known}" for known in computed for prefix in (GENERATED_PREFIX, VALIDATION_PREFIX)]
        raise ConfigError(f"unknown metric '{name}'{suggest(name, [*METRICS, *derived])}")
    found: Metric = METRICS[base].traits["metric"]
    if base == name:
        return found
    if name.startswith(GENERATED_PREFIX):
        return replace(found, name=name, label=f"CNN {found.label}", model="generated")
    return replace(found, name=name, label=f"Validation {found.label}", is_share=False, model="flow")


def find_metric(name: str) -> Metric:
    """Return a metric; one that is not registered gets its name as label."""
    try:
        return metric(name)
    except ConfigError:
        return Metric(name, label=name, decimals=3)


def find_registered_name(name: str) -> str:
    """Return the name under which a metric is registered: x for `cnn_x` and `validation_x`, otherwise the name."""
    for prefix in (GENERATED_PREFIX, VALIDATION_PREFIX):
        base = name.removeprefix(prefix)
        if name not in METRICS and base in METRICS and METRICS[base].builder is not None:
            return base
    return name


def list_computed_metrics(own: Iterable[str] = ()) -> list[str]:
    """Return the names of the metrics computed for a run: all built-in ones, and the user's `own`."""
    project = [name for name in METRICS if METRICS[name].extension is None and METRICS[name].builder is not None]
    return list(dict.fromkeys([*project, *own]))


def register_metric(
    name: str,
    function: Callable[..., float] | str | None = None,
    *,
    label: str,
    unit: str = "",
    higher_is_better: bool | None = None,
    decimals: int = 1,
    is_share: bool = False,
    meaning: str = "",
    model: MeasuredModel | None = None,
) -> Callable[[Builder], Builder]:
    """Register a metric.

    It is computed by `function` or by the function that this call decorates; without either, a stage records it.

    ```python
    @register_metric("brier", label="Brier score", higher_is_better=False, decimals=3)
    def brier_score(log_prob: Tensor, labels: Tensor) -> float: ...
    ```

    The function receives log p(x | y) of a flow or the log-softmax of a classifier, (N, K), and the labels, (N,), of
    the test split and, for a flow, of the validation split. `is_share` marks a percentage of the test images, for which
    tables show a 95 % interval, and `meaning` explains the metric on the page of the results. `model` is for metrics
    that a stage records for one kind of model.

    Raises:
        ConfigError: the name is taken, or names a value that is derived from another metric; or the function has
            other arguments.
    """
    METRICS.require_name(name)
    for prefix, use in (
        (GENERATED_PREFIX, "values for classifiers trained on generated images"),
        (VALIDATION_PREFIX, "values on the validation split"),
    ):
        if name.startswith(prefix) and name not in METRICS:
            raise ConfigError(f"metric '{name}': names with {prefix} are for {use}: rename it")
        if name not in METRICS and prefix + name in METRICS:
            raise ConfigError(
                f"metric '{name}': its {use} would be named {prefix}{name}, as another metric is: rename it"
            )
    entry = Metric(name, label, unit, higher_is_better, decimals, is_share, model, meaning)
    METRICS.register(name, Settings, function, metric=entry)

    def decorate(decorated: Builder) -> Builder:
        try:
            METRICS.set_builder(name, decorated)
        except ConfigError:
            METRICS.remove(name)
            raise
        return decorated

    return decorate


_ACCURACY: dict[str, Any] = {"unit": "%", "higher_is_better": True}

_RECORDED = (
    # metrics of a flow
    Metric(
        "nf_acc",
        label="NF-Acc",
        **_ACCURACY,
        is_share=True,
        model="flow",
        meaning="share of test images whose class has the largest log p(x | y) under the flow",
    ),
    Metric(
        "nf_top5",
        label="NF top-5",
        **_ACCURACY,
        is_share=True,
        model="flow",
        meaning="share of test images whose class is among the five with the largest log p(x | y)",
    ),
    Metric(
        "bits_per_dim",
        label="bits/dim",
        higher_is_better=False,
        decimals=3,
        model="flow",
        meaning="−log₂ p(x | y) per dimension, with y the class of the image",
    ),
    Metric("validation_nf_acc", label="Validation NF-Acc", **_ACCURACY, model="flow"),
    Metric("validation_nf_top5", label="Validation NF top-5", **_ACCURACY, model="flow"),
    Metric("validation_bits_per_dim", label="Validation bits/dim", higher_is_better=False, decimals=3, model="flow"),
    Metric(
        "parameters",
        label="Parameters",
        unit="M",
        decimals=2,
        model="flow",
        meaning="number of parameters of the flow, in millions",
    ),
    Metric(
        "hours",
        label="Training",
        unit="h",
        higher_is_better=False,
        decimals=2,
        model="flow",
        meaning="hours of training after the fit of the prior, without validation",
    ),
    Metric(
        "seconds_per_epoch",
        label="Epoch",
        unit="s",
        higher_is_better=False,
        decimals=2,
        model="flow",
        meaning="median time of an epoch",
    ),
    Metric(
        "seconds_per_1000_samples",
        label="1000 samples",
        unit="s",
        higher_is_better=False,
        decimals=2,
        model="flow",
        meaning="time to draw 1000 images",
    ),
    Metric(
        "fit_iterations",
        label="Iterations of the fit",
        higher_is_better=False,
        model="flow",
        meaning="iterations of the fixed-point iteration",
    ),
    # metrics of a classifier trained on generated images
    Metric(
        "cnn_acc",
        label="CNN-Acc",
        **_ACCURACY,
        is_share=True,
        model="generated",
        meaning="accuracy, on test images, of a classifier trained only on images generated by the flow",
    ),
    Metric("validation_cnn_acc", label="Validation CNN-Acc", **_ACCURACY, model="generated"),
    Metric(
        "temperature",
        label="T",
        decimals=2,
        model="generated",
        meaning="temperature of the samples, z = μ + T Σ^½ ε",
    ),
    # metrics of a classifier trained on real images
    Metric(
        "top1",
        label="Top-1",
        **_ACCURACY,
        is_share=True,
        model="real",
        meaning="accuracy of a classifier trained on real images",
    ),
    Metric(
        "top5",
        label="Top-5",
        **_ACCURACY,
        is_share=True,
        model="real",
        meaning="share of images whose class is among the five most probable ones",
    ),
    Metric(
        "real_top1",
        label="ReaL top-1",
        **_ACCURACY,
        model="real",
        meaning="accuracy on the labels of ImageNet-ReaL",
    ),
    Metric(
        "real_top5",
        label="ReaL top-5",
        **_ACCURACY,
        model="real",
        meaning="top-5 accuracy on the labels of ImageNet-ReaL",
    ),
    Metric("validation_top1", label="Validation top-1", **_ACCURACY, model="real"),
    # derived from the seeds of a row, for claims (nfpi.config.claims); not recorded by a run
    Metric("divergence", label="Diverged", unit="%", higher_is_better=False, decimals=0),
)
"""Metrics that have no function."""

for _metric in _RECORDED:
    METRICS.register(_metric.name, metric=_metric)
