"""Model card of a flow, the README.md of its folder: description, scores and limits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from numbers import Real
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from nfpi.config.priors import PRIORS
from nfpi.model.trained import TrainedFlow
from nfpi.results.statistics.intervals import wilson_interval

_TAGS = ["normalizing-flow", "class-conditional", "image-classification", "image-generation"]
_LICENSE_OF_PACKAGE = "MIT"
_DECIMALS = {"n": 0, "nf_acc": 2, "bits_per_dim": 3, "ece": 2, "worst_class_acc": 2}
"""metrics of :meth:`nfpi.ClassConditionalFlow.evaluate` that a card shows, in the order of its table"""
_PERCENTAGES = {"nf_acc", "ece", "worst_class_acc"}
_NAMES_ON_HUB = {"nf_acc": "accuracy", "bits_per_dim": "bits_per_dim", "ece": "ece"}

_CITATION = """\
@inproceedings{enescu2024learning,
  title     = {Learning Conditionally Untangled Latent Spaces using Fixed Point Iteration},
  author    = {Enescu, Victor and Sahbi, Hichem},
  booktitle = {British Machine Vision Conference (BMVC)},
  year      = {2024}
}"""

_LIMITS = """\
- Probabilities of classes assume that all classes are equally frequent.
- An image of none of the classes is still assigned to one. Bits/dim reveal only some of these images: \
images simpler than the training images may be more likely than these.
- Densities are those of images of the size and kind above; they depend on how an image was \
resized and compressed.
- Samples resemble the training images, including their biases and any private content.
- Intervals account for the random choice of the images, but not of the seed."""


def make_card(model: TrainedFlow, metrics: Mapping[str, Any] | None = None, license: str | None = None) -> ModelCard:
    """Make the card of a model from its config.

    Args:
        model: the model.
        metrics: some or all of the metrics of :meth:`nfpi.ClassConditionalFlow.evaluate` on test images; None: the card
            has only the metrics on validation images, if any.
        license: identifier of the licence of the weights, e.g. "mit"; None: the card says "not stated".

    Raises:
        ValueError: `metrics` has entries but none of these metrics; or one of them is not a number, or is a percentage
            outside 0 to 100.
    """
    name = model.data["name"]
    results = list(_make_results(metrics or {}, name or "images"))
    title = f"Class-conditional normalizing flow of {name or 'images'}"
    data = ModelCardData(
        license=license,
        library_name="nfpi",
        pipeline_tag="image-classification",
        tags=list(_TAGS),
        model_name=title if results else None,
        eval_results=results or None,
    )
    parts = [
        f"# {title}",
        "log p(x | y) = log N(f(x); μ_y, Σ_y) + log |det ∂f/∂x|: an invertible network f and a Gaussian for each class "
        f"y{_describe_method(model)}.\n"
        "The same weights classify images, give their densities and draw new ones.",
        "## Use",
        "```python\nfrom nfpi import ClassConditionalFlow\n\n"
        "model = ClassConditionalFlow.from_pretrained(folder)  # or the id of a repository\n"
        f"names = [model.classes[index] for index in model.predict(images)]  # {model.domain.dtype} (N, H, W, C)\n"
        "drawn = model.sample([0, 1], temperature=0.8)  # one image of each of two classes\n```",
        "## Data",
        _format_list(_describe_data(model)),
        "## Settings",
        _format_list(_describe_settings(model)),
        "## Metrics",
        _format_metrics(model, metrics),
        "## Limits",
        _LIMITS,
        "## Licence",
        f"Weights: {license or 'not stated'}.\n"
        f"The package `nfpi`: {_LICENSE_OF_PACKAGE}.\n"
        "The licence of the training images may restrict what may be done with the weights.",
        "## How to cite",
        f"```bibtex\n{_CITATION}\n```",
    ]
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n")


def _select_known(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Select the known metrics that are measured, that is, finite; raises ValueError for impossible ones."""
    known = {name: metrics[name] for name in _DECIMALS if name in metrics}
    if metrics and not known:
        raise ValueError(f"metrics: expected some of {', '.join(_DECIMALS)}, received {', '.join(map(str, metrics))}")
    for name, value in known.items():
        if not isinstance(value, Real):
            raise ValueError(f"metrics: expected a number for {name}, received {value!r}")
        if name in _PERCENTAGES and (float(value) < 0 or float(value) > 100):  # NaN is "not measured"
            raise ValueError(f"metrics: expected a percentage, 0 to 100, for {name}, received {value}")
    return {name: float(value) for name, value in known.items() if math.isfinite(value)}


def _describe_method(model: TrainedFlow) -> str:
    """Describe how the Gaussians were obtained, as the end of a sentence."""
    if model.config.get("start") == "release":
        return ", read from a checkpoint of the paper's code"
    prior = model.config.get("prior", {})
    method = prior.get("method")
    if method is None:
        return ", kept at their initial values" if prior else ""
    if method not in PRIORS:  # its extension is not loaded, which would tell how it works
        return f", obtained by the method `{method}`"
    how = "learned along with f" if PRIORS[method].traits["learned"] else "fitted"
    incomplete = prior.get("converged") is False
    return f", {how} by the method `{method}`" + (
        f", which did not converge in {prior['iterations']} iterations" if incomplete else ""
    )


def _describe_data(model: TrainedFlow) -> Iterator[tuple[str, str]]:
    channels, height, width = model.flow.shape
    yield "Data set", model.data["name"] or "not stated"
    kind = "8-bit pixels" if model.domain.dtype == "uint8" else "latents of an autoencoder"
    yield "Images", f"{height}×{width}, {channels} channel{'' if channels == 1 else 's'}, {kind}"
    if "n" in model.data:
        yield "Training images", str(model.data["n"])
    classes = model.classes
    first = ", ".join(f"`{name}`" for name in classes[:20])
    yield "Classes", f"{len(classes)}: {first}{', …' if len(classes) > 20 else ''}"


def _describe_settings(model: TrainedFlow) -> Iterator[tuple[str, str]]:
    config = model.config
    size = ", ".join(f"{key} {value}" for key, value in model.flow.settings.model_dump(mode="json").items())
    yield "Flow", f"{model.flow.kind}: {size}"
    parameters = sum(parameter.numel() for parameter in model.flow.parameters())
    yield "Parameters", f"{parameters / 1e6:.2f} M"
    prior = config.get("prior", {})
    if prior:
        method, weight = prior.get("method", "none"), prior.get("lambda", 0)
        yield "Gaussians", f"method {method}, λ = {weight:g}, start {config.get('start')}"
    training = config.get("training", {})
    if training.get("epochs"):
        names = ("epochs", "batch_size", "optimizer", "learning_rate", "augmentation")
        yield "Training", ", ".join(f"{name} {training[name]}" for name in names if name in training)
    yield "Seed", str(model.seed)


def _format_metrics(model: TrainedFlow, metrics: Mapping[str, Any] | None) -> str:
    """Format the known metrics as a table with one row per image set; cells of unknown values are empty."""
    rows = []
    for split, values in {"validation": model.config.get("validation"), "test": metrics}.items():
        known = _select_known(values or {})
        if not known.keys() - {"n"}:
            continue
        cells = {name: f"{value:.{_DECIMALS[name]}f}" for name, value in known.items()}
        cells |= {name: f"{cells[name]} %" for name in cells.keys() & _PERCENTAGES}
        if "nf_acc" in known and known.get("n", 0) >= 1:
            low, high = wilson_interval(known["nf_acc"], int(known["n"]))
            cells["nf_acc"] += f" (95 % interval {low:.2f} to {high:.2f})"
        if values and "worst_class_acc" in known and "worst_class" in values:
            name = str(values["worst_class"]).replace("|", r"\|")  # a plain | would end the cell
            cells["worst_class_acc"] += f" (`{name}`)"
        rows.append(f"| {' | '.join([split, *(cells.get(name, '') for name in _DECIMALS)])} |")
    if not rows:
        return "Not measured."
    header = "| images | n | accuracy | bits/dim | calibration error | worst class |"
    return "\n".join([header, "| :--- | ---: | :--- | ---: | ---: | :--- |", *rows])


def _make_results(metrics: Mapping[str, Any], name: str) -> Iterator[EvalResult]:
    """Convert metrics to entries of the hub's model index."""
    for key, value in _select_known(metrics).items():
        if key not in _NAMES_ON_HUB:
            continue
        yield EvalResult(
            task_type="image-classification",
            dataset_type=name,
            dataset_name=name,
            dataset_split="test",
            metric_type=_NAMES_ON_HUB[key],
            metric_value=round(value, 4),
        )


def _format_list(items: Iterator[tuple[str, str]]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in items)
