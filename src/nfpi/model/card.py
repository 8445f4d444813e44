"""Model card of a flow, the README.md of its folder: description, scores and limits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from nfpi.model.trained import TrainedFlow
from nfpi.results.intervals import wilson_interval

_TAGS = ["normalizing-flow", "class-conditional", "image-classification", "image-generation"]
_LICENSE_OF_PACKAGE = "MIT"

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
- Intervals cover the choice of the images, but not of the seed."""


def make_card(model: TrainedFlow, metrics: Mapping[str, Any] | None = None, license: str | None = None) -> ModelCard:
    """Make the card of a model from its config.

    Args:
        model: the model.
        metrics: metrics of :meth:`nfpi.ClassConditionalFlow.evaluate` on test images; None: the card has only those of
            validation images, if any.
        license: identifier of the licence of the weights, e.g. "mit"; None: the card says "not stated".
    """
    name = model.data["name"]
    title = f"Class-conditional normalizing flow of {name or 'images'}"
    data = ModelCardData(
        license=license,
        library_name="nfpi",
        pipeline_tag="image-classification",
        tags=list(_TAGS),
        model_name=title if metrics else None,
        eval_results=list(_make_results(metrics, name or "images")) if metrics else None,
    )
    parts = [
        f"# {title}",
        "log p(x | y) = log N(f(x); μ_y, Σ_y) + log |det ∂f/∂x|: an invertible network f and a Gaussian for each class "
        "y, fitted by fixed-point iteration.\n"
        "The same weights classify images, give their densities and draw new ones.",
        "## Use",
        "```python\nfrom nfpi import ClassConditionalFlow\n\n"
        "model = ClassConditionalFlow.from_pretrained(folder)  # or the id of a repository\n"
        "names = [model.classes[index] for index in model.predict(images)]  # uint8 (N, H, W, C)\n"
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
        yield "Gaussians", f"method {prior.get('method')}, λ = {prior.get('lambda', 0):g}, start {config.get('start')}"
    training = config.get("training", {})
    if training.get("epochs"):
        names = ("epochs", "batch_size", "optimizer", "learning_rate", "augmentation")
        yield "Training", ", ".join(f"{name} {training[name]}" for name in names if name in training)
    yield "Seed", str(model.seed)


def _format_metrics(model: TrainedFlow, metrics: Mapping[str, Any] | None) -> str:
    """Format the known metrics as a table with one row per image set."""
    rows = []
    known = {"validation": model.config.get("validation"), "test": metrics}
    for split, values in known.items():
        if not values or values.get("nf_acc") is None:
            continue
        low, high = wilson_interval(values["nf_acc"], values["n"])
        accuracy = f"{values['nf_acc']:.2f} % (95 % interval {low:.2f} to {high:.2f})"
        calibration = f"{values['ece']:.2f} %" if math.isfinite(values.get("ece", math.nan)) else ""
        worst = f"{values['worst_class_acc']:.2f} % (`{values['worst_class']}`)" if "worst_class" in values else ""
        rows.append(
            f"| {split} | {values['n']} | {accuracy} | {values['bits_per_dim']:.3f} | {calibration} | {worst} |"
        )
    if not rows:
        return "Not measured."
    header = "| images | n | accuracy | bits/dim | calibration error | worst class |"
    return "\n".join([header, "| :--- | ---: | :--- | ---: | ---: | :--- |", *rows])


def _make_results(metrics: Mapping[str, Any], name: str) -> Iterator[EvalResult]:
    """Convert metrics to entries of the hub's model index."""
    for kind, key in (("accuracy", "nf_acc"), ("bits_per_dim", "bits_per_dim"), ("ece", "ece")):
        yield EvalResult(
            task_type="image-classification",
            dataset_type=name,
            dataset_name=name,
            dataset_split="test",
            metric_type=kind,
            metric_value=round(float(metrics[key]), 4),
        )


def _format_list(items: Iterator[tuple[str, str]]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in items)
