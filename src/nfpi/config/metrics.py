"""Registry of metrics: label, unit, decimals and direction of each, for tables, figures and claims."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeVar

from nfpi.config.base import ConfigError, Settings, suggest
from nfpi.config.registry import Registry

GENERATED_PREFIX = "cnn_"
"""Prefix of metrics of classifiers that are trained on generated images."""
VALIDATION_PREFIX = "validation_"
"""Prefix of metrics measured on the validation split."""

MISMATCH_LIMIT = 0.1
"""Value of the metric `mismatch`, in bits/dim, above which a flow is said not to follow its prior.

Chosen on recorded runs (docs/equations.md)."""

ACCURACIES = {"nf_acc": "flow", "cnn_acc": "classifier", "top1": "classifier"}
"""Accuracies that can be computed per image from predictions.npz, and the kind of model that makes them."""

METRICS = Registry("metric", ("log_prob", "labels"), package="nfpi.results.metrics")
"""Builders compute a metric: (log_prob (N, K), labels (N,)) → float; metrics recorded by a stage have no builder. Those
of the project are registered where they are defined, in :mod:`nfpi.results.metrics`.
Trait: `metric`, its :class:`Metric`."""


Builder = TypeVar("Builder", bound=Callable[..., float])
MeasuredModel = Literal["flow", "generated", "reference", "samples", "real"]
"""What a metric is of: a flow; a classifier trained on its images (generated), the same classifier trained on the real
images (reference), or the images themselves (samples); another classifier trained on real images (real)."""
Group = Literal["accuracy", "density", "probabilities", "samples", "cost", "other"]
"""What a metric tells of a run, under which the page shows it."""


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
        is_calibrated: whether it is computed from log p(x | y) / τ, with τ fitted on the validation split
            (:mod:`nfpi.results.statistics.calibration`); it is missing without validation images.
        group: what it tells of a run.
    """

    name: str
    label: str
    unit: str = ""
    higher_is_better: bool | None = None
    decimals: int = 1
    is_share: bool = False
    model: MeasuredModel | None = None
    meaning: str = ""
    is_calibrated: bool = False
    group: Group = "probabilities"

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
        return Metric(name, label=name, decimals=3, group="other")


def find_registered_name(name: str) -> str:
    """Return the name under which a metric is registered: x for `cnn_x` and `validation_x`, otherwise the name."""
    for prefix in (GENERATED_PREFIX, VALIDATION_PREFIX):
        base = name.removeprefix(prefix)
        if name not in METRICS and base in METRICS and METRICS[base].builder is not None:
            return base
    return name


def is_computed(name: str) -> bool:
    """Return whether a metric is computed from the log-probabilities of images, not recorded by a stage."""
    base = find_registered_name(name)
    return base in METRICS and METRICS[base].builder is not None


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
    is_calibrated: bool = False,
    group: Group = "probabilities",
) -> Callable[[Builder], Builder]:
    """Register a metric.

    It is computed by `function` or by the function that this call decorates; without either, a stage records it.

    ```python
    @register_metric("sureness", label="Sureness", unit="%")
    def sureness(log_prob: Tensor, labels: Tensor) -> float: ...
    ```

    The function receives log p(x | y) of a flow or the log-softmax of a classifier, (N, K), and the labels, (N,), of
    the test split and, for a flow, of the validation split. `is_share` marks a percentage of the test images, for which
    tables show a 95 % interval, and `meaning` explains the metric on the page of the results. `model` is for metrics
    that a stage records for one kind of model. With `is_calibrated`, log p is divided by the fitted temperature τ.
    `group` is the group of numbers in which the page shows it.

    Raises:
        ConfigError: the name is taken, or names a value that is derived from another metric; or the function has
            other arguments.
    """
    for prefix in (GENERATED_PREFIX, VALIDATION_PREFIX):
        if name not in METRICS and (name.startswith(prefix) or prefix + name in METRICS):
            raise ConfigError(f"metric '{name}': {prefix}x is the name of a value derived from metric x: rename it")
    entry = Metric(name, label, unit, higher_is_better, decimals, is_share, model, meaning, is_calibrated, group)
    METRICS.register(name, Settings, function, metric=entry)

    def decorate(decorated: Builder) -> Builder:
        METRICS.remove(name)
        METRICS.register(name, Settings, decorated, metric=entry)
        return decorated

    return decorate


_flow = partial(Metric, model="flow", group="density")
_cost = partial(Metric, model="flow", group="cost")
_generated = partial(Metric, model="generated", group="samples")
_samples = partial(Metric, model="samples", group="samples")
_real = partial(Metric, model="real")
_ACCURACY: dict[str, Any] = {"unit": "%", "higher_is_better": True, "group": "accuracy"}
_SHARE: dict[str, Any] = {**_ACCURACY, "is_share": True}
_BITS: dict[str, Any] = {"higher_is_better": False, "decimals": 3}
_TIME: dict[str, Any] = {"higher_is_better": False, "decimals": 2}

NETWORKS = {"resnet18": "ResNet18", "inception": "Inception"}
"""Networks whose features the distances of generated from real images are of: the reference classifier, if it is a
ResNet18, and the Inception network of FID (Heusel et al., 2017)."""
DISTANCES: dict[str, tuple[str, bool, int, str]] = {
    "fid": ("FID", False, 2, "Fréchet distance of generated from real images, of"),
    "kid": ("KID", False, 4, "squared maximum mean discrepancy of generated from real images, of"),
    "precision": ("Precision", True, 3, "share of generated images that are among the real ones, by"),
    "recall": ("Recall", True, 3, "share of real images that are among the generated ones, by"),
}
"""Label, `higher_is_better`, decimals and meaning of distances of features; the name of a metric is that of the
distance and of the network, as in `fid_resnet18`."""


REAL_PREFIX = "real_"
"""Prefix of distances between the real images of two splits, instead of generated and real ones."""


def find_network(name: str) -> str | None:
    """Return the network whose features a metric is of; None: it is no distance of features."""
    distance, _, network = name.removeprefix(REAL_PREFIX).partition("_")
    return network if distance in DISTANCES and network in NETWORKS else None


_RECORDED = (
    _flow(
        "nf_acc",
        "NF-Acc",
        **_SHARE,
        meaning="share of test images whose class has the largest log p(x | y) under the flow",
    ),
    _flow(
        "nf_top5",
        "NF top-5",
        **_SHARE,
        meaning="share of test images whose class is among the five with the largest log p(x | y)",
    ),
    _flow("bits_per_dim", "bits/dim", **_BITS, meaning="−log₂ p(x | y) per dimension, with y the class of the image"),
    _flow(
        "relative_weight",
        "s₀",
        decimals=2,
        meaning="the weight λ relative to numbers of classes and dimensions, 2 λ e^(−1/α) / (α K D)",
    ),
    _flow(
        "beta",
        "β",
        decimals=2,
        meaning="regression of the class means of the training latents on those of the Gaussians; 1: they agree",
    ),
    _flow("beta_fit", "β at the fit", decimals=2, meaning="β of the latents that the Gaussians were fitted to"),
    _flow(
        "mismatch",
        "Mismatch",
        "bits/dim",
        **_BITS,
        meaning="bits/dim under the prior less those under the class means and variances of the training latents",
    ),
    _flow(
        "distance",
        "Distance",
        decimals=2,
        meaning="mean (z − μ)ᵀ Σ⁻¹ (z − μ) / D of the test latents; 1 if they are the prior's",
    ),
    _flow(
        "unseen",
        "Unseen images",
        decimals=0,
        group="accuracy",
        meaning="number of test images that a model trained elsewhere is known not to have been trained on",
    ),
    _flow("training_distance", "Training distance", decimals=2, meaning="the same of the training latents"),
    _flow("prior_separation", "s of the prior", decimals=2, meaning="Σ_y (μ_y − μ̄)ᵀ Σ_y⁻¹ (μ_y − μ̄) / (K D)"),
    _flow("latent_separation", "s of the latents", decimals=2, meaning="the same of the class means of the latents"),
    Metric(
        "calibration_temperature",
        "τ",
        decimals=2,
        meaning="p(y | x) = softmax(log p(x | y) / τ) has the largest likelihood on the validation split",
    ),
    *(
        Metric(
            f"{name}_{score}",
            f"{label} by {score}",
            "%",
            higher_is_better=name == "auroc",
            model=None if score == "confidence" else "flow",
            meaning=f"{meaning}, told from test images by {how}",
        )
        for name, label, meaning in (
            ("auroc", "AUROC", "area under the ROC curve of images of another data set"),
            (
                "fpr95",
                "FPR95",
                "share of images of another data set that are accepted along with 95 % of the test images",
            ),
        )
        for score, how in (
            ("confidence", "the margin between the two likeliest classes"),
            ("density", "log p(x)"),
            ("typicality", "the distance to the nearest Gaussian against its quantiles on the validation split"),
        )
    ),
    _flow("validation_nf_acc", "Validation NF-Acc", **_ACCURACY),
    _flow("validation_nf_top5", "Validation NF top-5", **_ACCURACY),
    _flow("validation_bits_per_dim", "Validation bits/dim", **_BITS),
    _cost("parameters", "Parameters", "M", decimals=2, meaning="number of parameters of the flow, in millions"),
    _cost(
        "hours", "Training", "h", **_TIME, meaning="hours of training after the fit of the prior, without validation"
    ),
    _cost("seconds_per_epoch", "Epoch", "s", **_TIME, meaning="median time of an epoch"),
    _cost("seconds_per_1000_samples", "1000 samples", "s", **_TIME, meaning="time to draw 1000 images"),
    _cost(
        "fit_iterations",
        "Iterations of the fit",
        higher_is_better=False,
        meaning="iterations of the fixed-point iteration",
    ),
    _generated(
        "cnn_acc",
        "CNN-Acc",
        **_SHARE,
        meaning="accuracy, on test images, of a classifier trained only on images generated by the flow",
    ),
    _generated("validation_cnn_acc", "Validation CNN-Acc", **_ACCURACY),
    _generated("temperature", "T", decimals=2, meaning="temperature of the samples, z = μ + T Σ^½ ε"),
    Metric(
        "real_acc",
        "Real-Acc",
        "%",
        is_share=True,
        group="accuracy",
        model="reference",
        meaning="accuracy, on test images, of the classifier of CNN-Acc trained on as many real images: its ceiling",
    ),
    Metric("validation_real_acc", "Validation Real-Acc", "%", model="reference", group="accuracy"),
    _samples(
        "gan_test",
        "GAN-test",
        **_SHARE,
        meaning="accuracy, on the generated images, of the classifier of Real-Acc, which measures their quality only",
    ),
    _samples("saturated", "Saturated", "%", meaning="share of values of the generated images that are 0 or 255"),
    *(
        _samples(
            f"{prefix}{distance}_{network}",
            f"{label} ({of}{', real' if prefix else ''})",
            higher_is_better=is_better,
            decimals=decimals,
            meaning=f"{label}, by features of {of}, of real images of another split"
            if prefix
            else f"{meaning} features of {of}",
        )
        for network, of in NETWORKS.items()
        for distance, (label, is_better, decimals, meaning) in DISTANCES.items()
        for prefix in ("", REAL_PREFIX)
    ),
    _real("top1", "Top-1", **_SHARE, meaning="accuracy of a classifier trained on real images"),
    _real("top5", "Top-5", **_SHARE, meaning="share of images whose class is among the five most probable ones"),
    _real("real_top1", "ReaL top-1", **_ACCURACY, meaning="accuracy on the labels of ImageNet-ReaL"),
    _real("real_top5", "ReaL top-5", **_ACCURACY, meaning="top-5 accuracy on the labels of ImageNet-ReaL"),
    _real("validation_top1", "Validation top-1", **_ACCURACY),
    # derived from the seeds of a row, for claims (nfpi.config.claims); not recorded by a run
    Metric("divergence", "Diverged", "%", higher_is_better=False, decimals=0),
)
"""Metrics that have no function."""

for _metric in _RECORDED:
    METRICS.register(_metric.name, metric=_metric)
