"""A trained flow with its class Gaussians, as an object and as the folder that stages of the workflow exchange."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, field_validator

from nfpi.config.base import NonNegativeFloat, Seed
from nfpi.data.domain import Domain, choose_domain
from nfpi.flows.image_flow import ImageFlow
from nfpi.flows.registry import build_flow, check_description
from nfpi.priors.files import deserialize_prior, serialize_prior
from nfpi.priors.gaussian import GaussianPrior
from nfpi.runs import MODEL_FILES
from nfpi.runtime.divergence import raise_if_diverged
from nfpi.runtime.files import write_atomically, written_together
from nfpi.runtime.formats import FormatError, Record, check_divergence, check_record, read_json_object
from nfpi.runtime.tensors import load_tensors, save_tensors

CONFIG, WEIGHTS = MODEL_FILES.values()
_FORMAT = 1
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
"""suffixes of pickled weight files, which may execute code when they are read"""


class _Data(Record):
    name: str | None
    classes: Annotated[list[str], Field(min_length=1)]
    dtype: Literal["uint8", "float16"] = "uint8"
    extra: dict[str, Any]

    @field_validator("classes")
    @classmethod
    def _require_distinct(cls, classes: list[str]) -> list[str]:
        if len(set(classes)) < len(classes):
            raise ValueError("expected distinct names")
        return classes


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


@dataclass(eq=False, repr=False)
class TrainedFlow:
    """A flow f with K class Gaussians: log p(x | y) = log N(f(x); μ_y, Σ_y) + log |det ∂f/∂x|.

    :class:`nfpi.ClassConditionalFlow` adds fitting, inference and sampling.

    Attributes:
        flow: the flow f, with the averaged weights of its training.
        prior: K Gaussians in D = C·H·W dimensions, float64.
        config: description of the model as JSON values: `data` (name, classes, dtype, extra), `training`, `seed`,
            `start` (initial Gaussians), `step` (number of training steps), `prior` (method, λ and settings), and after
            `fit` with held-out images `validation` (their metrics).
    """

    flow: ImageFlow
    prior: GaussianPrior
    config: dict[str, Any]

    def __post_init__(self) -> None:
        self._check_classes()

    def _check_classes(self) -> None:
        """Check that the names of the classes are distinct, and that the prior matches their number and the flow.

        Raises:
            ValueError: names are repeated, or the prior has another number of classes or dimensions.
        """
        repeated = next((name for name, count in Counter(self.classes).items() if count > 1), None)
        if repeated is not None:
            raise ValueError(f"classes: expected distinct names, received '{repeated}' {self.classes.count(repeated)}×")
        expected = (len(self.classes), math.prod(self.flow.shape))
        received = (self.prior.num_classes, self.prior.num_dimensions)
        if received != expected:
            raise ValueError(
                f"prior: expected {expected[0]} classes in {expected[1]} dimensions, "
                f"received {received[0]} in {received[1]}"
            )

    def __repr__(self) -> str:
        channels, height, width = self.flow.shape
        return (
            f"{type(self).__name__}(flow={self.flow.kind!r}, image={(height, width, channels)}, "
            f"num_classes={self.prior.num_classes})"
        )

    @property
    def data(self) -> dict[str, Any]:
        """Description of the training images: name, classes, dtype, extra."""
        data: dict[str, Any] = self.config["data"]
        return data

    @property
    def classes(self) -> list[str]:
        """Names of the K classes."""
        return list(self.data["classes"])

    @property
    def domain(self) -> Domain:
        """Domain of the training images: pixels, or latents of an autoencoder."""
        training = self.config["training"]
        return choose_domain(self.data, grey_noise=training["grey_noise"], latent_noise=training["latent_noise"])

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return int(self.config["seed"])

    def require_classes(self, classes: list[str], where: Path) -> None:
        """Check that images, stored at `where`, have the classes that the model was trained on.

        Raises:
            ValueError: they have other classes.
        """
        if classes != self.classes:
            raise ValueError(f"{where}: expected the classes of the model, {self.classes}, received {classes}")

    def write(self, folder: Path | str) -> None:
        """Write config.json and model.safetensors, together or not at all.

        Raises:
            ValueError: :meth:`read` would refuse the files, e.g. because weights are float64, or the prior has more
                classes than there are names.
        """
        folder = Path(folder)
        self._check_classes()
        weights = self.flow.state_dict()
        _require_loadable(self.flow, weights)
        tensors = {f"flow.{name}": value for name, value in weights.items()}
        tensors |= {f"prior.{name}": value for name, value in serialize_prior(self.prior).items()}
        config = {"format": _FORMAT, "flow": self.flow.description, **self.config}
        text = json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False)
        check_record(_Config, json.loads(text), None, "the config of a model")
        check_description(self.flow.description, None)
        _ = self.domain  # raises if the config lacks what the domain needs
        with written_together():
            save_tensors(folder / WEIGHTS, tensors, {"format": _FORMAT})
            write_atomically(folder / CONFIG, text + "\n")

    @classmethod
    def read(cls, folder: Path | str) -> Self:
        """Read a model from a folder written by :meth:`write`, onto the CPU.

        Raises:
            FormatError: `folder` is a file; a file in it is missing, damaged, or of another format; or the weights are
                a pickle.
            ConfigError: the kind of flow is not known, perhaps because its extension was not loaded.
            Diverged: the files record a fit that diverged.
        """
        folder = Path(folder)
        _refuse_files(folder)
        _refuse_pickles(folder)
        path = folder / CONFIG
        try:
            config = read_json_object(path)
        except FileNotFoundError:
            inner = folder / "model"
            hint = f"; did you mean {inner}?" if (inner / CONFIG).is_file() else ""
            raise FormatError(f"{path}: there is no such file{hint}") from None
        check_divergence(config, path)
        raise_if_diverged(config)
        version, description = config.pop("format", None), config.pop("flow", None)
        if version != _FORMAT:
            raise FormatError(f"{path}: expected format {_FORMAT}, received {version}: made by another version of nfpi")
        check_record(_Config, config, path, "the config of a model")
        check_description(description, path)
        tensors, _ = load_tensors(folder / WEIGHTS)
        others = [name for name in tensors if not name.startswith(("flow.", "prior."))]
        if others:
            raise FormatError(f"{folder / WEIGHTS}: expected weights of a flow and its prior, received {others[0]}")

        def select_prefix(prefix: str) -> dict[str, torch.Tensor]:
            return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}

        prior = deserialize_prior(folder / WEIGHTS, select_prefix("prior."))
        flow = build_flow(description, select_prefix("flow."), folder / WEIGHTS)
        try:
            model = cls(flow, prior, config)
        except ValueError as error:
            raise FormatError(f"{path}: expected a config that matches {WEIGHTS}, received another ({error})") from None
        try:
            _ = model.domain
        except ValueError as error:
            raise FormatError(f"{path}: {error}") from None
        return model


def _require_loadable(flow: ImageFlow, weights: Mapping[str, torch.Tensor]) -> None:
    """Check that weights can be loaded again: in other dtypes than float32, only flows of some extensions can.

    Raises:
        ValueError: they cannot.
    """
    if all(value.dtype == torch.float32 for value in weights.values() if value.is_floating_point()):
        return
    try:
        build_flow(flow.description, weights)
    except FormatError as error:
        raise ValueError(f"flow: {error}; model.flow.float() makes all weights float32") from None


def _refuse_files(path: Path) -> None:
    """Raise FormatError if the path is a file; the message says what to pass or call instead."""
    if not path.is_file():
        return
    if path.name in (CONFIG, WEIGHTS):
        advice = f"its folder is {path.parent}"
    else:
        advice = "for a checkpoint of the paper's code: ClassConditionalFlow.from_release"
    raise FormatError(f"{path}: expected a folder with a model, received a file; {advice}")


def _refuse_pickles(folder: Path) -> None:
    """Raise FormatError if the weights of a folder are a pickle instead of a safetensors file."""
    if folder.is_dir() and not (folder / WEIGHTS).exists():
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
        if pickles:
            raise FormatError(f"{folder}: expected {WEIGHTS}, received {pickles[0]}: pickles are never read")
