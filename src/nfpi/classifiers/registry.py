"""Registration and construction of classifier models, and their weights."""

from __future__ import annotations

import pkgutil
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor, nn

from nfpi.classifiers.preprocessing import PUBLISHED, RGB, Preprocessing
from nfpi.config.base import PositiveFloat, PositiveInt, Seed, Settings, Share
from nfpi.config.classifiers import CLASSIFIERS, ClassifierConfig
from nfpi.config.registry import Variant
from nfpi.data.domain import Standardisation
from nfpi.runtime.faults import describe_exhausted_memory, format_error
from nfpi.runtime.formats import FormatError, Record, check_record
from nfpi.runtime.tensors import load_state, require_finite, verify_archive

Builder = TypeVar("Builder", bound=Callable[..., nn.Module])

_ARCHITECTURE_ERRORS = (TypeError, AssertionError, ValueError, RuntimeError, ZeroDivisionError, LookupError)
"""Exceptions that torch and timm raise for an impossible architecture."""


def register_classifier(
    name: str, settings: type[Settings] = Settings, *, preprocessing: Preprocessing | None = None
) -> Callable[[Builder], Builder]:
    """Register a function or class as the classifier `model: name` of config.yaml.

    The builder is called with `(num_classes, in_channels, image_size, settings)` and returns a module that maps
    normalised images (B, C, S, S) to logits (B, K), with random weights from torch's global generator. The model is
    trained, tested and saved like the other classifiers.

    Args:
        name: name of the model.
        settings: class of the settings under `architecture:`.
        preprocessing: how images are normalised and resized; None: normalised to [−1, 1], and centre-cropped.

    Raises:
        ConfigError: the name is taken; or the builder has other arguments.

    Examples:
        >>> @register_classifier("linear")
        ... def linear(num_classes, in_channels, image_size, settings):
        ...     return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size**2, num_classes))
    """

    def register(builder: Builder) -> Builder:
        CLASSIFIERS.register(name, settings, builder, preprocessing=preprocessing or Preprocessing())
        return builder

    return register


def get_preprocessing(config: ClassifierConfig, dataset_statistics: tuple[RGB, RGB] | None = None) -> Preprocessing:
    """Return the preprocessing of a classifier's images.

    Args:
        config: model and normalisation.
        dataset_statistics: mean and standard deviation of the channels of the training images, for `normalization:
            dataset`, which other values ignore. None with `dataset`: the result has the model's own mean and std, so
            only its resizing may be used.
    """
    found = _get_trait(CLASSIFIERS[config.model], "preprocessing", Preprocessing())
    preprocessing: Preprocessing = found if isinstance(found, Preprocessing) else found()
    statistics = dataset_statistics if config.normalization == "dataset" else PUBLISHED.get(config.normalization)
    if statistics is None:
        return preprocessing
    mean, std = statistics
    return replace(preprocessing, mean=mean, std=std)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read named weights from a file of safetensors or of `torch.save`, without executing code in it.

    Raises:
        FormatError: the file is missing, damaged, or holds something else, or a number in it is not finite.
    """
    content: Any
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            if zipfile.is_zipfile(path):  # files of torch < 1.6 are not zip archives
                verify_archive(path)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # loading a damaged pickle may raise any exception
        raise FormatError(
            f"{path}: expected a file of tensors only, as of a state_dict ({format_error(error, 300)})"
        ) from None
    for key in ("state_dict", "model"):  # common keys of checkpoints that contain more than weights
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    named = isinstance(content, Mapping) and all(isinstance(name, str) for name in content)
    if not named or not all(isinstance(value, Tensor) for value in content.values()):
        raise FormatError(f"{path}: expected tensors by name, received something else")
    require_finite(path, content)
    return dict(content)


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], path: Path | None) -> None:
    """Load weights of any floating-point precision into a model; errors name `path`.

    Raises:
        FormatError: names or shapes differ.
    """
    try:
        load_state(model, weights, any_precision=True)
    except ValueError as error:
        raise FormatError(f"{path}: expected the weights of this classifier, received others ({error})") from None


def build_classifier(config: ClassifierConfig, num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    """Build a classifier of normalised images (B, C, S, S) → (B, K) logits, on the CPU.

    Random weights are drawn from torch's global generator.

    Args:
        config: model, architecture, and initial weights.
        num_classes: K.
        in_channels: C.
        image_size: S.

    Raises:
        ValueError: the architecture is impossible, there are no published weights of the model, or a model that is not
            trained (`epochs: 0`) has no head or one for another number of classes.
        FormatError: the file of weights is missing, damaged, or of another architecture.
        OSError: the published weights cannot be obtained.
    """
    variant, size = CLASSIFIERS[config.model], (num_classes, in_channels, image_size)
    weights = read_weights(config.weights) if config.weights is not None else None
    if weights is None and not config.pretrained:
        return _build(variant, size, config.settings)
    if "weights_from" in variant.traits:
        model = _build_pretrained(variant, size, config.settings, weights, config.weights)
        known = variant.traits["published"]["num_classes"]
        if weights is not None:
            known = len(weights.get("head.weight", ()))
        if not config.epochs and num_classes != known:
            raise ValueError(
                f"classifier: {config.model} without training (epochs: 0) expected weights of {num_classes} classes "
                f"(head.weight), received weights of {known}"
            )
        return model
    if weights is None:
        raise ValueError(f"classifier: {config.model} has no published weights: pretrained cannot be true")
    model = _build(variant, size, config.settings)
    load_weights(model, weights, config.weights)
    return model


class _Statistics(Record):
    mean: Annotated[list[Share], Field(min_length=1)]
    std: Annotated[list[PositiveFloat], Field(min_length=1)]


class _Size(Record):
    num_classes: PositiveInt
    in_channels: PositiveInt
    image_size: Annotated[int, Field(ge=1, le=2**14)]


class _Header(Record):
    """Header entries that are needed to read a trained classifier."""

    seed: Seed
    classifier: dict[str, Any]
    size: _Size
    temperature: PositiveFloat | None
    normalization: _Statistics | None = None
    elements: Standardisation | None = None


_INITIAL_WEIGHTS = ("weights", "pretrained", "start_from")
"""Settings of initial weights. They are ignored in the file of a trained classifier, which holds its own weights."""


def build_trained(
    weights: Mapping[str, Tensor], header: Mapping[str, Any], path: Path
) -> tuple[ClassifierConfig, nn.Module, Preprocessing]:
    """Build a trained classifier from the contents of its file alone.

    Args:
        weights: state_dict of the classifier.
        header: `seed`, `classifier` (settings), `size` (num_classes, in_channels, image_size), `temperature` and, for
            `normalization: dataset`, `normalization` (mean and std of the training images); for vectors, `elements`
            (mean and std of each element of the training vectors).
        path: path of the file, named in errors.

    Returns:
        The settings, without those of initial weights, the model, and how images are resized and normalised.

    Raises:
        FormatError: the header does not describe a classifier, its model is unknown (perhaps because the file that
            registers it was not loaded), or the weights are of another architecture.
    """
    found = check_record(_Header, header, path, "a trained classifier")
    settings = {name: value for name, value in found.classifier.items() if name not in _INITIAL_WEIGHTS}
    config = check_record(ClassifierConfig, settings, path, "the settings of a classifier")
    try:
        if config.image_size not in (None, found.size.image_size):
            raise ValueError(f"image_size: expected {found.size.image_size} as in size, received {config.image_size}")
        if config.normalization == "dataset" and found.normalization is None:
            raise ValueError("expected mean and std of the training images, received none")
        variant, size = CLASSIFIERS[config.model], tuple(found.size.model_dump().values())
        with torch.device("meta" if variant.extension is None else "cpu"):
            model = _build(variant, size, config.settings)
    except ValueError as error:
        raise FormatError(f"{path}: {error}") from None
    if variant.extension is None:  # sizes that contradict the weights are found before they could exhaust memory
        load_weights(model, {name: weight.to("meta") for name, weight in weights.items()}, path)
        model = _build(variant, size, config.settings)
    load_weights(model, weights, path)
    statistics = found.normalization
    known = None if statistics is None else (tuple(statistics.mean), tuple(statistics.std))
    preprocessing = get_preprocessing(config, known)
    return config, model, preprocessing if found.elements is None else preprocessing.for_vectors(found.elements)


def published_weights(model: str) -> dict[str, Tensor]:
    """Load the weights that timm has published for a model, from its cache or the hub.

    Raises:
        ValueError: there are no published weights.
        OSError: they cannot be obtained.
    """
    variant = CLASSIFIERS[model]
    if "published" not in variant.traits:
        raise ValueError(f"classifier: {model} has no published weights")
    published = variant.traits["published"]
    size = (published["num_classes"], 3, published["image_size"])
    return _build_pretrained(variant, size, variant.settings(), None, None).state_dict()


def _get_trait(variant: Variant, name: str, default: Any = None) -> Any:
    """Return a trait of a model; one given as `module:attribute` is imported."""
    trait = variant.traits.get(name, default)
    return pkgutil.resolve_name(trait) if isinstance(trait, str) else trait


def _build(variant: Variant, size: tuple[int, int, int], settings: Settings) -> nn.Module:
    """Build a model with random weights; errors are one line, except those of an extension's model."""
    try:
        model: nn.Module = variant.build(*size, settings)
    except _ARCHITECTURE_ERRORS as error:
        if variant.extension is not None or describe_exhausted_memory(error):
            raise
        images = "{} classes of images with {} channels and {} pixels a side".format(*size)
        raise ValueError(
            f"classifier: expected a possible {variant.name} for {images}, received the architecture "
            f"{settings.model_dump(exclude_unset=True)} ({format_error(error, 300)})"
        ) from None
    return model


def _build_pretrained(
    variant: Variant,
    size: tuple[int, int, int],
    settings: Settings,
    weights: dict[str, Tensor] | None,
    path: Path | None,
) -> nn.Module:
    """Build a model with the weights in the file `path`, or, if both are None, with the published ones."""
    try:
        model: nn.Module = _get_trait(variant, "weights_from")(*size, settings, weights)
    except Exception as error:  # the hub's errors have no common base
        reason = format_error(error, 300)
        if path is not None:
            raise FormatError(f"{path}: expected the weights of this classifier, received others ({reason})") from None
        raise OSError(f"classifier: published weights of {variant.name} cannot be obtained ({reason})") from None
    return model
