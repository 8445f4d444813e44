"""The folder of a model, config.json and model.safetensors, and what its config records."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from pydantic import Field

from nfpi.config.base import NonNegativeFloat, PositiveFloat, Seed
from nfpi.data.domain import Domain, choose_domain
from nfpi.data.store import ImageSet
from nfpi.flows.bijection import ImageFlow
from nfpi.flows.registry import build_flow, check_description
from nfpi.priors.files import deserialize_prior, serialize_prior
from nfpi.priors.gaussian import GaussianPrior
from nfpi.results.statistics.abstention import Thresholds, compute_margins
from nfpi.results.statistics.calibration import fit_temperature
from nfpi.results.statistics.detection import Typicality
from nfpi.runs import MODEL_FILES
from nfpi.runtime.divergence import raise_divergence
from nfpi.runtime.files import write_atomically, written_together
from nfpi.runtime.formats import FormatError, Record, check_record, read_json_object
from nfpi.runtime.tensors import load_tensors, save_tensors, select_prefix

CONFIG, WEIGHTS = MODEL_FILES.values()
NO_CLASS = -1
"""Prediction for an image for which the model abstains."""
PRETRAINED = {path.name: path for path in (Path(__file__).parent / "pretrained").iterdir()}
"""Folders of the models that the package brings along, by name; `docs/pretrained.py` makes them."""
_DIGESTS = "training_images"
"""Tensor with the digests of the training images, in the file of the weights."""
_FORMAT = 1


class Calibration(Record):
    """What a model learns from validation images: how sure it may be, and how far from its classes their images lie.

    Attributes:
        temperature: τ of p(y | x) = softmax(log p(x | y) / τ).
        thresholds: thresholds of the margin between the two likeliest classes.
        typicality: quantiles of the distance to the nearest class Gaussian.
    """

    temperature: PositiveFloat
    thresholds: Thresholds
    typicality: Typicality

    @classmethod
    def fit(cls, log_prob: np.ndarray, labels: np.ndarray, distance: np.ndarray) -> Self:
        """Fit to validation images.

        Args:
            log_prob: log p(x | y), (N, K).
            labels: indices of classes, (N,).
            distance: (z − μ_y)ᵀ Σ_y⁻¹ (z − μ_y) / D to the nearest class, (N,).
        """
        is_correct = log_prob.argmax(1) == labels
        return cls(
            temperature=fit_temperature(log_prob, labels),
            thresholds=Thresholds.from_validation(compute_margins(log_prob), is_correct),
            typicality=Typicality.from_validation(distance),
        )

    def predict(
        self, log_prob: np.ndarray, coverage: float | None, max_risk: float | None = None, delta: float = 0.05
    ) -> np.ndarray:
        """Return argmax_y log p(x | y), or :data:`NO_CLASS` where the margin is too small, (N,).

        Raises:
            ValueError: a share is out of range, or both coverage and risk are given, or neither.
        """
        if (coverage is None) == (max_risk is None):
            raise ValueError("coverage, max_risk: expected one of them, received both or neither")
        if coverage is not None:
            threshold = self.thresholds.find_by_coverage(coverage)
        else:
            assert max_risk is not None
            threshold = self.thresholds.find_by_risk(max_risk, delta)
        return np.where(compute_margins(log_prob) > threshold, log_prob.argmax(1), NO_CLASS)

    def decide(self, log_prob: np.ndarray, distance: np.ndarray, coverage: float) -> np.ndarray:
        """Return `sure`, `not sure` or, for atypical images, `unknown`, (N,)."""
        decisions = np.where(self.predict(log_prob, coverage) == NO_CLASS, "not sure", "sure")
        return np.where(self.typicality.measure(distance) > 1, "unknown", decisions)


class _Data(Record):
    name: str | None
    classes: Annotated[list[str], Field(min_length=1)]
    dtype: Literal["uint8", "float16", "float32"] = "uint8"
    extra: dict[str, Any]


class _Training(Record):
    grey_noise: NonNegativeFloat
    latent_noise: NonNegativeFloat


class _Config(Record):
    """Keys of a model's config that are checked when it is written or read."""

    data: _Data
    training: _Training
    seed: Seed
    prior: dict[str, Any] = {}
    validation: dict[str, Any] = {}
    following: dict[str, float | None] = {}
    calibration: Calibration | None = None


def describe_images(images: ImageSet) -> dict[str, Any]:
    """Return the part of the training images' metadata that later stages need, for `data` of a model's config."""
    return {key: images.meta[key] for key in ("name", "classes", "dtype", "extra")}


def find_domain(config: Mapping[str, Any]) -> Domain:
    """Return the domain of the training images that a config describes.

    Raises:
        DataError: the images are latents of an autoencoder whose spread or scale is invalid.
    """
    training = config["training"]
    return choose_domain(config["data"], grey_noise=training["grey_noise"], latent_noise=training["latent_noise"])


def check_classes(classes: list[str], flow: ImageFlow, prior: GaussianPrior) -> None:
    """Check that the names of the classes are distinct, and that the prior matches their number and the flow.

    Raises:
        ValueError: names are repeated, or the prior has another number of classes or dimensions.
    """
    if len(set(classes)) < len(classes):
        raise ValueError(f"classes: expected distinct names, received {', '.join(classes)}")
    expected = (len(classes), math.prod(flow.shape))
    received = (prior.num_classes, prior.num_dimensions)
    if received != expected:
        raise ValueError(
            f"prior: expected {expected[0]} classes in {expected[1]} dimensions, "
            f"received {received[0]} in {received[1]}"
        )


def require_classes(received: list[str], expected: list[str], where: Path) -> None:
    """Check that images, stored at `where`, have the classes that a model was trained on.

    Raises:
        ValueError: they have other classes.
    """
    if received != expected:
        raise ValueError(f"{where}: expected the classes of the model, {expected}, received {received}")


def write_model(
    folder: Path, flow: ImageFlow, prior: GaussianPrior, config: Mapping[str, Any], digests: np.ndarray | None
) -> None:
    """Write config.json and model.safetensors, together or not at all.

    Raises:
        ValueError: :func:`read_model` would refuse the files, e.g. because weights are float64, or the prior has more
            classes than there are names.
    """
    text = json.dumps(
        {"format": _FORMAT, "flow": flow.description, **config}, indent=2, ensure_ascii=False, allow_nan=False
    )
    _check_config(json.loads(text), flow, prior)
    weights = flow.state_dict()
    if any(value.is_floating_point() and value.dtype != torch.float32 for value in weights.values()):
        build_flow(flow.description, weights)  # only flows of some extensions have weights of other dtypes
    tensors = {f"flow.{name}": value for name, value in weights.items()}
    tensors |= {f"prior.{name}": value for name, value in serialize_prior(prior).items()}
    tensors |= {} if digests is None else {_DIGESTS: torch.from_numpy(digests)}
    with written_together():
        save_tensors(folder / WEIGHTS, tensors, {"format": _FORMAT})
        write_atomically(folder / CONFIG, text + "\n")


def read_model(folder: Path) -> tuple[ImageFlow, GaussianPrior, dict[str, Any], np.ndarray | None]:
    """Read flow, prior, config and digests of the training images from a folder, onto the CPU.

    Raises:
        FormatError: `folder` is a file; or a file in it is missing, damaged, or of another format.
        ConfigError: the kind of flow is not known, perhaps because its extension was not loaded.
        Diverged: the files record a fit that diverged.
    """
    if folder.is_file():
        raise FormatError(
            f"{folder}: expected a folder with a model, received a file; for a checkpoint of the paper's code: "
            "ClassConditionalFlow.from_release"
        )
    path = folder / CONFIG
    try:
        config = read_json_object(path)
    except FileNotFoundError:
        raise FormatError(f"{path}: there is no such file") from None
    raise_divergence(config, path)
    version, description = config.pop("format", None), config.pop("flow", None)
    if version != _FORMAT:
        raise FormatError(f"{path}: expected format {_FORMAT}, received {version}: made by another version of nfpi")
    check_description(description, path)
    tensors, _ = load_tensors(folder / WEIGHTS)
    prior = deserialize_prior(folder / WEIGHTS, select_prefix(tensors, "prior."))
    flow = build_flow(description, select_prefix(tensors, "flow."), folder / WEIGHTS)
    try:
        _check_config(config, flow, prior)
    except ValueError as error:
        raise FormatError(f"{path}: expected a config that matches {WEIGHTS}, received another ({error})") from None
    return flow, prior, config, tensors[_DIGESTS].numpy() if _DIGESTS in tensors else None


def _check_config(config: Mapping[str, Any], flow: ImageFlow, prior: GaussianPrior) -> None:
    """Raise ValueError for a config that lacks what a model needs, or does not match its flow and prior."""
    found = check_record(_Config, config, None, "the config of a model")
    check_classes(found.data.classes, flow, prior)
    find_domain(config)
