"""Metrics: what each is called, its unit, its decimals and its direction, once for tables, figures and claims."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from nfpi.config.base import ConfigError, Settings
from nfpi.config.registry import Registry

OF_GENERATED = "cnn_"
"""What the name of a metric begins with where it was measured on a classifier of generated images."""
OF_VALIDATION = "validation_"
"""What the name of a metric begins with where it was measured on the validation split."""

_OTHER_COLUMNS = (
    *("experiment", "row", "dataset", "flow", "prior", "lambda", "seed", "classifier", "augmentation", "table"),
    *("status", "diverged", "validation", "chosen_by", "candidates", "best", "metric", "value", "images"),
)
"""Columns of results that are no metric."""
_MEASURED_OF_GENERATED = ("cnn_acc",)
"""Metrics of classifiers of generated images that are recorded by their own name."""
_DERIVED = re.compile(r"paper_.*|.*_(std|low|high|seeds|difference|p|test)")
"""Columns that tables have beside those of metrics."""

ACCURACIES = {"nf_acc": "flow", "cnn_acc": "classifier", "top1": "classifier"}
"""Metrics that predictions.npz tells image by image (whether the predicted class is the label), and whose predictions
these are."""

METRICS = Registry("metric")
"""Builders compute a metric: (log_prob (N, K), labels (N,)) → a number; metrics that are recorded have none.
Traits: those of :class:`Metric`."""


@dataclass(frozen=True)
class Metric:
    """How a metric is written.

    Attributes:
        name: of its column.
        label: of its heading.
        unit: empty: without.
        higher_is_better: direction; None: neither is.
        decimals: of a value in a table, at most.
        is_share: whether it is the percentage of the test images that have some property, as an accuracy is: one value
            has a confidence interval then.
    """

    name: str
    label: str
    unit: str = ""
    higher_is_better: bool | None = None
    decimals: int = 1
    is_share: bool = False

    @property
    def is_time(self) -> bool:
        """Whether it is a measured time, which differs from call to call."""
        return self.unit in ("h", "s")


def metric(name: str) -> Metric:
    """The entry of a metric.

    Of a metric x that is computed, `cnn_x` is that of a classifier of generated images, and `validation_x` that of a
    flow on the validation split.

    Raises:
        ConfigError: there is no such metric.
    """
    base = registered_name(name)
    traits = METRICS[base].traits
    if base == name:
        return Metric(name, **traits)
    if name.startswith(OF_GENERATED):
        return Metric(name, **traits | {"label": f"CNN {traits['label']}"})
    return Metric(name, **traits | {"label": f"Validation {traits['label']}", "is_share": False})


def registered_name(name: str) -> str:
    """The name by which a metric is registered: x for `cnn_x` and `validation_x`; the name itself where it is none."""
    for prefix in (OF_GENERATED, OF_VALIDATION):
        base = name.removeprefix(prefix)
        if name not in METRICS and base in METRICS and METRICS[base].builder is not None:
            return base
    return name


def computed_metrics(own: Iterable[str] = ()) -> list[str]:
    """Names of the metrics that are computed of a run: all of the project's, and these of the user's."""
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
) -> Any:
    """Add a metric; without a function it is recorded by a stage, or this is the decorator of the function.

    ```python
    @register_metric("ece", label="ECE", unit="%", higher_is_better=False, decimals=2)
    def expected_calibration_error(log_prob: Tensor, labels: Tensor) -> float: ...
    ```

    The function gets log p(x | y) of a flow or the log-softmax of a classifier, (N, K), and the labels, (N,), of the
    test split. `is_share` says that it is the percentage of these images that have some property: tables give the
    95 % interval of a single value then.

    Raises:
        ConfigError: the name is taken, or means something else in a table.
    """
    if name in _OTHER_COLUMNS or _DERIVED.fullmatch(name):
        raise ConfigError(f"metric '{name}': a column of tables that is no metric has this name: rename it")
    if name.startswith(OF_GENERATED) and name not in _MEASURED_OF_GENERATED:
        raise ConfigError(
            f"metric '{name}': {OF_GENERATED} marks metrics of classifiers of generated images: rename it"
        )
    traits = {
        "label": label,
        "unit": unit,
        "higher_is_better": higher_is_better,
        "decimals": decimals,
        "is_share": is_share,
    }
    METRICS.register(name, Settings, function, **traits)

    def decorate(decorated: Callable[..., float]) -> Callable[..., float]:
        METRICS.set_builder(name, decorated)
        return decorated

    return decorate


# of a flow
register_metric("nf_acc", label="NF-Acc", unit="%", higher_is_better=True, is_share=True)
register_metric("nf_top5", label="NF top-5", unit="%", higher_is_better=True, is_share=True)
register_metric("bits_per_dim", label="bits/dim", higher_is_better=False, decimals=3)
register_metric("validation_nf_acc", label="Validation NF-Acc", unit="%", higher_is_better=True)
register_metric("validation_nf_top5", label="Validation NF top-5", unit="%", higher_is_better=True)
register_metric("validation_bits_per_dim", label="Validation bits/dim", higher_is_better=False, decimals=3)
register_metric("parameters", label="Parameters", unit="M", decimals=2)
register_metric("hours", label="Training", unit="h", higher_is_better=False, decimals=2)
register_metric("seconds_per_epoch", label="Epoch", unit="s", higher_is_better=False, decimals=2)
register_metric("seconds_per_1000_samples", label="1000 samples", unit="s", higher_is_better=False, decimals=2)
# of a classifier of generated images
register_metric("cnn_acc", label="CNN-Acc", unit="%", higher_is_better=True, is_share=True)
register_metric("validation_cnn_acc", label="Validation CNN-Acc", unit="%", higher_is_better=True)
register_metric("temperature", label="T", decimals=2)
# of a classifier of real images
register_metric("top1", label="Top-1", unit="%", higher_is_better=True, is_share=True)
register_metric("top5", label="Top-5", unit="%", higher_is_better=True, is_share=True)
register_metric("real_top1", label="ReaL top-1", unit="%", higher_is_better=True)
register_metric("real_top5", label="ReaL top-5", unit="%", higher_is_better=True)
register_metric("validation_top1", label="Validation top-1", unit="%", higher_is_better=True)
# of the fit of a flow's Gaussians
register_metric("fit_iterations", label="Iterations of the fit", higher_is_better=False)
# of the seeds of a row, for claims (nfpi.config.claims): no run records it
register_metric("divergence", label="Diverged", unit="%", higher_is_better=False, decimals=0)
# of any of them
register_metric(
    "ece", "nfpi.results.measures:expected_calibration_error", label="ECE", unit="%", higher_is_better=False, decimals=2
)
register_metric(
    "worst_class_acc",
    "nfpi.results.measures:worst_class_accuracy",
    label="Worst class",
    unit="%",
    higher_is_better=True,
)
