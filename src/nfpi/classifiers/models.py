"""The table of classifiers, and one way to build any of them."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from nfpi.classifiers.eva02 import IMAGENET_SIZE, PUBLISHED_CLASSES, eva02, eva02_preprocessing, pretrained_eva02
from nfpi.classifiers.preprocessing import Preprocessing
from nfpi.classifiers.resnet18 import small_image_resnet18
from nfpi.classifiers.swin import small_image_swin
from nfpi.config.settings import ClassifierConfig
from nfpi.runtime.tensors import FormatError


@dataclass(frozen=True)
class ClassifierModel:
    """How a classifier is made, and what its images must look like.

    Args:
        build: (num_classes, in_channels, image_size, **architecture) → a network with random weights.
        pretrained: (weights, num_classes, in_channels, image_size, **architecture) → one that fits given weights, or
            published ones where `weights` is none; none: weights are loaded as they are, and none are published.
        preprocessing: normalisation and shape of its images.
    """

    build: Callable[..., nn.Module]
    pretrained: Callable[..., nn.Module] | None = None
    preprocessing: Preprocessing = field(default_factory=Preprocessing)


_ARCHITECTURE_FAULTS = (TypeError, AssertionError, ValueError, RuntimeError, ZeroDivisionError)


def _resnet18(num_classes: int, in_channels: int, image_size: int, **architecture: Any) -> nn.Module:
    return small_image_resnet18(num_classes, in_channels, **architecture)  # of any size


CLASSIFIERS = {
    "resnet18": ClassifierModel(_resnet18),
    "swin": ClassifierModel(small_image_swin),
    "eva02": ClassifierModel(eva02, pretrained_eva02, eva02_preprocessing()),
}
"""By `ClassifierConfig.model`."""


def preprocessing_of(config: ClassifierConfig) -> Preprocessing:
    """What this classifier's images must look like."""
    return CLASSIFIERS[config.model].preprocessing


def build_classifier(config: ClassifierConfig, num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    """A classifier of normalised images (B, C, S, S) → (B, K) logits, on the CPU.

    Random weights are drawn from torch's global generator.

    Args:
        config: model, architecture, weights.
        num_classes: K.
        in_channels: C.
        image_size: S.

    Raises:
        ValueError: the architecture is impossible, or its published weights are out of reach.
        FormatError: the file of weights is missing, damaged, or of another architecture.
    """
    kind = CLASSIFIERS[config.model]
    size = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size}
    weights = read_weights(config.weights) if config.weights is not None else None
    if weights is None and not config.pretrained:
        return _built(kind.build, config, size)
    if kind.pretrained is not None:
        model = _built(kind.pretrained, config, {"weights": weights, **size})
        head = weights.get("head.weight") if weights is not None else None
        published = len(head) if head is not None else PUBLISHED_CLASSES
        if not config.epochs and num_classes != published:
            raise ValueError(
                f"classifier: {config.model} without training (epochs: 0) expected the {published} classes of its "
                f"weights, received images of {num_classes}"
            )
        return model
    if weights is None:
        raise ValueError(f"classifier: {config.model} has no published weights: pretrained cannot be true")
    model = _built(kind.build, config, size)
    load_weights(model, weights, config.weights)
    return model


def published_weights(model: str) -> dict[str, Tensor]:
    """The weights that timm has published for a classifier of ImageNet, from its cache or the hub.

    Raises:
        ValueError: none are published.
        OSError: they cannot be had.
    """
    kind = CLASSIFIERS[model]
    if kind.pretrained is None:
        raise ValueError(f"classifier: {model} has no published weights")
    size = {"weights": None, "num_classes": PUBLISHED_CLASSES, "in_channels": 3, "image_size": IMAGENET_SIZE}
    return _built(
        kind.pretrained, ClassifierConfig.model_validate({"model": model, "pretrained": True}), size
    ).state_dict()


def read_weights(path: Path) -> dict[str, Tensor]:
    """Weights by name from a file of safetensors or of torch; nothing in it is executed.

    Raises:
        FormatError: the file is missing, damaged, or holds something else.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise FormatError(f"{path}: there is no such file") from None
    except (SafetensorError, OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise FormatError(f"{path}: expected a file of weights, received a damaged one ({reason})") from None
    for key in ("state_dict", "model"):  # where training programs put them, beside other things
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise FormatError(f"{path}: expected tensors by name, received something else")
    return dict(content)


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], path: Path | None) -> None:
    """Put weights into a model that has exactly these; `path` is named in errors.

    Raises:
        FormatError: names or shapes differ.
    """
    try:
        model.load_state_dict(dict(weights))
    except RuntimeError as error:
        reason = " ".join(" ".join(str(error).splitlines()[1:2]).split())[:200]
        raise FormatError(f"{path}: expected the weights of this classifier, received others ({reason})") from None


def _built(build: Callable[..., nn.Module], config: ClassifierConfig, size: dict[str, Any]) -> nn.Module:
    """A model, or one line on why there is none."""
    try:
        return build(**size, **config.architecture)
    except Exception as error:  # the hub's errors share no base
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        if isinstance(error, OSError) or not isinstance(error, _ARCHITECTURE_FAULTS):
            raise OSError(f"classifier: the published weights of {config.model} cannot be had ({reason})") from None
    known = ", ".join(f"{name} {value}" for name, value in size.items() if name != "weights")
    raise ValueError(
        f"classifier: expected a possible {config.model} of {known}, "
        f"received the architecture {config.architecture} ({reason})"
    )
