"""A trained flow with its class Gaussians, as an object and as the folder that stages of the workflow exchange."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
import torch
from pydantic import Field

from nfpi.config.base import NonNegativeFloat, Seed
from nfpi.config.experiments import Refit
from nfpi.config.priors import PRIORS
from nfpi.data.domain import Domain, choose_domain
from nfpi.data.store import ImageSet
from nfpi.flows.bijection import ImageFlow
from nfpi.flows.registry import build_flow, check_description
from nfpi.model.calibration import Calibration
from nfpi.priors.files import deserialize_prior, serialize_prior
from nfpi.priors.following import estimate_moments
from nfpi.priors.gaussian import GaussianPrior
from nfpi.priors.registry import fit_prior, initial_prior
from nfpi.priors.statistics import ClassStatistics
from nfpi.runs import BASELINE, MODEL_FILES, REFITS
from nfpi.runtime.divergence import raise_divergence
from nfpi.runtime.files import write_atomically, written_together
from nfpi.runtime.formats import FormatError, Record, check_record, read_json_object
from nfpi.runtime.tensors import load_tensors, save_tensors, select_prefix

if TYPE_CHECKING:
    from nfpi.training.state import TrainingState

CONFIG, WEIGHTS = MODEL_FILES.values()
_DIGESTS = "training_images"
"""Tensor with the digests of the training images, in the file of the weights."""
_FORMAT = 1
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
"""suffixes of pickled weight files, which may execute code when they are read"""


class _Data(Record):
    name: str | None
    classes: Annotated[list[str], Field(min_length=1)]
    dtype: Literal["uint8", "float16"] = "uint8"
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
    card: dict[str, Any] = {}
    calibration: Calibration | None = None


def describe_images(images: ImageSet) -> dict[str, Any]:
    """Return the part of the training images' metadata that later stages need, for `data` of a model's config."""
    return {key: images.meta[key] for key in ("name", "classes", "dtype", "extra")}


@dataclass(eq=False, repr=False)
class TrainedFlow:
    """A flow f with K class Gaussians: log p(x | y) = log N(f(x); μ_y, Σ_y) + log |det ∂f/∂x|.

    :class:`nfpi.ClassConditionalFlow` adds fitting, inference and sampling.

    Attributes:
        flow: the flow f, with the averaged weights of its training.
        prior: K Gaussians in D = C·H·W dimensions, float64.
        config: description of the model as JSON values: `data` (name, classes, dtype, extra), `training`, `seed`,
            `start` (initial Gaussians), `step` (number of training steps), `prior` (method, λ and settings), after
            `fit` or `refit` `following` (β and mismatch of the training images, see
            :class:`nfpi.priors.following.Following`), after `fit` with held-out images `validation` (their metrics),
            `card` (metrics and licence that the model was saved with), and after `calibrate` `calibration`
            (:class:`nfpi.model.calibration.Calibration`).
        digests: digests of its training images (:func:`nfpi.data.store.digest_images`), each once, sorted; None: not
            known, as for models of earlier versions and released checkpoints.
    """

    flow: ImageFlow
    prior: GaussianPrior
    config: dict[str, Any]
    digests: np.ndarray | None = None

    def __post_init__(self) -> None:
        self._check_classes()

    @classmethod
    def from_training(
        cls,
        state: TrainingState,
        prior: GaussianPrior,
        *,
        start: str | None,
        prior_record: dict[str, Any],
        training: dict[str, Any],
        data: dict[str, Any],
        digests: np.ndarray,
        **further: Any,
    ) -> Self:
        """Make a model from the final state of a training, with averaged weights.

        Args:
            state: state of the training, with the Gaussians if it learned them.
            prior: the Gaussians of the training, if they were fixed.
            start: kind of initial Gaussians.
            prior_record: method, λ and settings of the Gaussians.
            training: settings of the training.
            data: description of the training images, see :func:`describe_images`.
            digests: digests of the training images.
            further: further entries of the config.
        """
        final = state.learner.prior if state.learner is not None else prior
        facts: dict[str, Any] = {"seed": state.seed, "start": start, "step": state.step}
        facts |= {"prior": prior_record, "training": training, "data": data}
        return cls(state.averaged_flow, final, {**facts, **further}, np.unique(digests))

    def _check_classes(self) -> None:
        """Check that the names of the classes are distinct, and that the prior matches their number and the flow.

        Raises:
            ValueError: names are repeated, or the prior has another number of classes or dimensions.
        """
        if len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes: expected distinct names, received {', '.join(self.classes)}")
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

    def refit_to(self, statistics: ClassStatistics, how: Refit = "moments") -> Self:
        """Return a model with the same flow, and with Gaussians estimated again from latents.

        What the config says of the former Gaussians is left out: `validation`, `following`, `calibration` and the
        card's metrics.

        Args:
            statistics: statistics of the latents of the training images, with covariances if the prior has full ones.
            how: `moments`: means and variances, or covariances, of each class; `prior`: by the method of the prior with
                its λ.

        Raises:
            ValueError: `how` is neither; the method of the prior is not known, or learns the Gaussians along with the
                flow; or a class has too few latents.
            Diverged: the fit diverged.
        """
        if how not in REFITS:
            raise ValueError(f"how: expected {' or '.join(REFITS)}, received {how!r}")
        record: dict[str, Any] = {**self.config.get("prior", {}), "refit": how}
        if how == "moments":
            record = {name: value for name, value in record.items() if name not in ("iterations", "converged")}
            prior = estimate_moments(statistics)
        elif "method" in record:
            block = PRIORS.validate(record["settings"])
            fitted = fit_prior(block, statistics, initial_prior(statistics, block.start, self.seed), record["lambda"])
            prior, record = fitted.prior, record | fitted.record
        elif self.config.get("start") in BASELINE:  # λ = 0 keeps the initial Gaussians
            prior = initial_prior(statistics, self.config["start"], self.seed)
        else:
            raise ValueError("refit: expected moments for a model whose prior has no known method, received prior")
        former = ("validation", "following", "calibration")
        kept = {name: value for name, value in self.config.items() if name not in former}
        kept |= {"card": {**self.config["card"], "metrics": {}}} if "card" in self.config else {}
        return replace(self, prior=prior.to("cpu"), config={**kept, "prior": record})

    def write(self, folder: Path | str) -> None:
        """Write config.json and model.safetensors, together or not at all.

        Raises:
            ValueError: :meth:`read` would refuse the files, e.g. because weights are float64, or the prior has more
                classes than there are names.
        """
        folder = Path(folder)
        self._check_classes()
        check_description(self.flow.description, None)
        _ = self.domain  # raises if the config lacks what the domain needs
        weights = self.flow.state_dict()
        if any(value.is_floating_point() and value.dtype != torch.float32 for value in weights.values()):
            build_flow(self.flow.description, weights)  # only flows of some extensions have weights of other dtypes
        tensors = {f"flow.{name}": value for name, value in weights.items()}
        tensors |= {f"prior.{name}": value for name, value in serialize_prior(self.prior).items()}
        tensors |= {} if self.digests is None else {_DIGESTS: torch.from_numpy(self.digests)}
        config = {"format": _FORMAT, "flow": self.flow.description, **self.config}
        text = json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False)
        check_record(_Config, json.loads(text), None, "the config of a model")
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
        _refuse_others(folder)
        path = folder / CONFIG
        try:
            config = read_json_object(path)
        except FileNotFoundError:
            raise FormatError(f"{path}: there is no such file") from None
        raise_divergence(config, path)
        version, description = config.pop("format", None), config.pop("flow", None)
        if version != _FORMAT:
            raise FormatError(f"{path}: expected format {_FORMAT}, received {version}: made by another version of nfpi")
        check_record(_Config, config, path, "the config of a model")
        check_description(description, path)
        tensors, _ = load_tensors(folder / WEIGHTS)
        prior = deserialize_prior(folder / WEIGHTS, select_prefix(tensors, "prior."))
        flow = build_flow(description, select_prefix(tensors, "flow."), folder / WEIGHTS)
        try:
            model = cls(flow, prior, config, tensors[_DIGESTS].numpy() if _DIGESTS in tensors else None)
            _ = model.domain  # raises if the config lacks what the domain needs
        except ValueError as error:
            raise FormatError(f"{path}: expected a config that matches {WEIGHTS}, received another ({error})") from None
        return model


def _refuse_others(folder: Path) -> None:
    """Raise FormatError if the path is a file, or a folder whose weights are a pickle."""
    if folder.is_file():
        raise FormatError(
            f"{folder}: expected a folder with a model, received a file; for a checkpoint of the paper's code: "
            "ClassConditionalFlow.from_release"
        )
    if folder.is_dir() and not (folder / WEIGHTS).exists():
        pickle = next((path.name for path in sorted(folder.iterdir()) if path.suffix in _PICKLES), None)
        if pickle is not None:
            raise FormatError(f"{folder}: expected {WEIGHTS}, received {pickle}: pickles are never read")
