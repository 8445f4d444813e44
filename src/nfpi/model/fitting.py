"""A fit in memory: settings that suit the images, training of the flow, and Gaussians estimated again."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from nfpi.config.base import NonNegativeFloat, Seed, Settings, explain
from nfpi.config.experiments import Refit
from nfpi.config.flows import FLOWS, FlowBlock, TrainingConfig, size_training
from nfpi.config.metrics import MISMATCH_LIMIT
from nfpi.config.priors import DEFAULT_RELATIVE_WEIGHT, PRIORS, LearnedMethod, PriorBlock, compute_weight, get_alpha
from nfpi.data.domain import VectorDomain
from nfpi.data.store import ImageSet, digest_images
from nfpi.flows.registry import describe_flow
from nfpi.model.files import describe_images
from nfpi.priors.following import estimate_moments
from nfpi.priors.gaussian import GaussianPrior
from nfpi.priors.registry import describe_prior, fit_prior, initial_prior
from nfpi.priors.statistics import ClassStatistics
from nfpi.runs import BASELINE, REFITS
from nfpi.runtime.device import Device, make_device, restored_settings
from nfpi.runtime.precision import full_precision, standard_defaults
from nfpi.training.batches import TrainingData
from nfpi.training.flow import continue_training, start_training
from nfpi.training.state import TrainingState

S = TypeVar("S", bound=Settings)
logger = logging.getLogger(__name__)
_ADVICE = (
    "the flow does not follow its Gaussians: its training images need %.2f bits/dim more under them than under the "
    "means and variances of their latents (expected at most %g), so samples lie where there are few images; more "
    "epochs, smaller batches or a smaller weight may help, or refit(images, labels)"
)
_SMALL, _MEDIUM = 16, 32
"""largest lengths of an image's longer side, in pixels, for two levels (small) and for three (medium)"""

_FOR_IMAGES = ("matrix_exponential", "glow", "transformer")
"""kinds of flows that split the pixels of an image"""
_TRAINING: dict[str, dict[str, Any]] = {
    "glow": {"learning_rate": 0.003},
    "transformer": {"learning_rate": 0.003},
    "identity": {"epochs": 1},
}
"""training settings that differ for a kind of flow"""


class FitSettings(Settings):
    """Arguments of :meth:`nfpi.ClassConditionalFlow.fit` besides images and device.

    Those of the type Any are validated by :func:`train_model`.
    """

    weight: NonNegativeFloat | None
    relative_weight: NonNegativeFloat | None
    flip: bool
    name: str | None
    seed: Seed
    epochs: Any
    flow: Any
    training: Any
    prior: Any


# ---- settings --------------------------------------------------------------------------------------------------------


def choose_num_levels(height: int, width: int) -> int:
    """Return the number of levels of a flow for images of this size.

    Two for sides of up to 16 pixels, three up to 32, and one more whenever the longer side doubles; but at most the
    number of times that height and width can both be halved.

    Raises:
        ValueError: height or width is odd.
    """
    wanted, side = (2, _SMALL) if max(height, width) <= _SMALL else (3, _MEDIUM)
    while max(height, width) > side:
        wanted, side = wanted + 1, 2 * side
    possible = next(level for level in range(wanted + 1) if level == wanted or (height | width) & (1 << level))
    if not possible:
        raise ValueError(
            f"images: expected an even height and width, as each level halves them, received {height}×{width}: "
            "crop, pad or resize the images"
        )
    return possible


def choose_default_settings(kind: str, height: int, width: int) -> dict[str, Any]:
    """Return the settings of a flow of this kind for images of this size.

    The matrix-exponential flow is that of the preset `demo` for 8×8 images, of `cifar10_small` for 32×32 and of
    `fashion_mnist_small` for 28×28; for other sizes, :func:`choose_num_levels` gives the number of levels.
    Kinds that extensions add have their own defaults.
    """
    if height == width == 1 and kind in _FOR_IMAGES:
        raise ValueError(f"flow: expected zuko, identity or a flow of your own for vectors, received {kind}")
    small = max(height, width) <= _SMALL
    match kind:
        case "matrix_exponential":
            levels = choose_num_levels(height, width)
            blocks = [2, 2] if small else [2, 1] + (levels - 2) * [1]
            return {
                "kind": kind,
                "num_flows": ([4, 4] + (levels - 2) * [2])[:levels],
                "num_blocks": blocks[:levels],
                "hidden_channels": levels * [64 if small else 48],
            }
        case "glow":
            levels = choose_num_levels(height, width)
            return {"kind": kind, "num_flows": levels * [8], "hidden_channels": levels * [64]}
        case "transformer":
            size = {"patch_size": 4, "num_flows": 16, "depth": 1, "width": 64, "channel_couplings": 1}
            return {"kind": kind, **size}
    return {"kind": kind}


def choose_flow(flow: str | Mapping[str, Any] | None, height: int, width: int) -> FlowBlock:
    """Return the settings of the flow of a fit.

    Args:
        flow: name of a kind; or settings, as under `flows:` in config.yaml; None: the matrix-exponential flow.
        height, width: size of the images.

    Raises:
        ValueError: the kind or a setting is unknown, a setting is out of range, or the default settings need an even
            height and width.
    """
    if flow is None or isinstance(flow, str):
        kind = FLOWS[flow or FLOWS.default].name
        flow = choose_default_settings(kind, height, width)
    block: FlowBlock = _parse_block(FLOWS, flow, "flow")
    return block


def choose_training(
    training: Mapping[str, Any] | None, epochs: int | None, kind: str, side: int, num_images: int
) -> TrainingConfig:
    """Return the training settings of a fit.

    Defaults: those of :func:`nfpi.config.flows.size_training`; augmentation `shift` if the longer side exceeds 16
    pixels, otherwise none; one evaluation, at the end; `fit_after_epochs` 0 for a single epoch, otherwise 1; a learning
    rate of 0.003 for Glow and transformer flows. The others are those of :class:`TrainingConfig`.

    Args:
        training: settings that differ from the defaults, as under `training:` in config.yaml.
        epochs: number of epochs; None: that of the settings.
        kind: kind of flow.
        side: longer side of the images, in pixels.
        num_images: number of training images.

    Raises:
        ValueError: a setting is unknown or out of range.
    """
    given = {**_TRAINING.get(kind, {}), **(training or {})}
    given |= {} if epochs is None else {"epochs": epochs}
    checked = parse_settings(TrainingConfig, {**given, "fit_after_epochs": 0}, "training: ")
    chosen = {name: getattr(checked, name) for name in ("epochs", "batch_size") if name in given}
    sized = size_training(num_images, **chosen)
    defaults = sized | {
        "augmentation": "none" if side <= _SMALL else "shift",
        "evaluate_every": sized["epochs"],
        "fit_after_epochs": 0 if sized["epochs"] == 1 else 1,
    }
    return parse_settings(TrainingConfig, {**defaults, **given}, "training: ")


def choose_prior(prior: str | Mapping[str, Any] | None) -> PriorBlock:
    """Return the settings of the prior of a fit.

    Args:
        prior: name of a method; or settings, as under `priors:` in config.yaml; None: the fixed-point iteration.

    Raises:
        ValueError: the method or a setting is unknown, or a setting is out of range.
    """
    block: PriorBlock = _parse_block(PRIORS, {"method": prior} if isinstance(prior, str) else prior or {}, "prior")
    return block


def choose_weight(
    weight: float | None, relative_weight: float | None, prior: PriorBlock, num_classes: int, num_dimensions: int
) -> float:
    """Return λ of a fit.

    Args:
        weight: λ; None: that of the relative weight.
        relative_weight: s₀; None: :data:`nfpi.config.priors.DEFAULT_RELATIVE_WEIGHT`.
        prior: settings of the prior.
        num_classes: K.
        num_dimensions: D.

    Raises:
        ValueError: both are given, or one although the prior has no λ; or λ is not given and the prior has no α.
    """
    if weight is not None and relative_weight is not None:
        raise ValueError("weight, relative_weight: expected one of them, received both")
    if not PRIORS[prior.method].traits["uses_weight"]:
        if given := weight or relative_weight:
            raise ValueError(f"weight: expected none with prior '{prior.method}', received {given:g}")
        return 0.0
    if weight is not None:
        return weight
    alpha = get_alpha(prior)
    if alpha is None:
        raise ValueError(f"weight: expected λ, since prior '{prior.method}' has no alpha, received none")
    chosen = DEFAULT_RELATIVE_WEIGHT if relative_weight is None else relative_weight
    return compute_weight(chosen, alpha, num_classes, num_dimensions)


def _parse_block(registry: Any, block: Any, what: str) -> Any:
    """Validate a block of config.yaml; raises ValueError in one line that begins with `what`."""
    if not isinstance(block, Mapping):
        raise ValueError(
            f"{what}: expected a name or settings, received {type(block).__name__}; register_{what} adds names"
        )
    try:
        return registry.validate(dict(block))
    except ValidationError as error:
        raise ValueError(f"{what}: {explain(error)}") from None
    except PydanticCustomError as error:
        raise ValueError(f"{what}: {error}") from None


def parse_settings(model: type[S], values: Mapping[str, Any], where: str = "") -> S:
    """Validate settings; raises ValueError in one line, which begins with `where`, for a wrong key or value."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise ValueError(f"{where}{explain(error)}") from None


# ---- training --------------------------------------------------------------------------------------------------------


def train_model(
    train: ImageSet, held_out: ImageSet | None, settings: FitSettings, device: torch.device | str | None, progress: bool
) -> dict[str, Any]:
    """Initialise a flow on images, fit the class Gaussians to its latents, and train it under them.

    Args:
        train: the training images.
        held_out: images to validate on, if any.
        settings, device, progress: see :meth:`nfpi.ClassConditionalFlow.fit`.

    Returns:
        The fields of a :class:`nfpi.ClassConditionalFlow`, by name.

    Raises:
        ValueError: a setting is invalid.
        Diverged: the fit of the Gaussians or the training diverged.
    """
    channels, height, width = train.shape
    is_vector = train.images.dtype.name == VectorDomain.dtype
    block = choose_flow("zuko" if settings.flow is None and is_vector else settings.flow, height, width)
    changes = {**block.training, **(settings.training or {})}
    config = choose_training(changes, settings.epochs, block.kind, max(height, width), len(train))
    if config.augmentation == "flip" and not settings.flip:
        raise ValueError("flip: expected True with augmentation 'flip', which otherwise has no effect")
    method = choose_prior(settings.prior)
    dimensions = channels * height * width
    strength = choose_weight(settings.weight, settings.relative_weight, method, len(train.classes), dimensions)
    with _training_device(device, config.precision) as place:
        data = TrainingData(train, held_out, config, place.device)
        description = describe_flow(block, train.shape)
        state, fitted, record = _fit_and_train(data, description, method, strength, settings.seed, place, progress)
    return assemble_model(
        state,
        fitted,
        start=method.start,
        prior_record=record,
        training=config.model_dump() | {"precision": place.precision},
        data=describe_images(train) | {"n": len(train)},
        digests=digest_images(train.images),
        threads=place.threads,
        **_describe_validation(state, held_out),
    )


def assemble_model(
    state: TrainingState,
    prior: GaussianPrior,
    *,
    start: str | None,
    prior_record: dict[str, Any],
    training: dict[str, Any],
    data: dict[str, Any],
    digests: np.ndarray,
    **further: Any,
) -> dict[str, Any]:
    """Return the fields of a model by name, from the final state of a training, with averaged weights.

    Args:
        state: state of the training, with the Gaussians if it learned them.
        prior: the Gaussians of the training, if they were fixed.
        start: kind of initial Gaussians.
        prior_record: method, λ and settings of the Gaussians.
        training: settings of the training.
        data: description of the training images, see :func:`nfpi.model.files.describe_images`.
        digests: digests of the training images.
        further: further entries of the config.
    """
    final = state.learner.prior if state.learner is not None else prior
    facts: dict[str, Any] = {"seed": state.seed, "start": start, "step": state.step}
    facts |= {"prior": prior_record, "training": training, "data": data}
    config = {**facts, **further}
    return {"flow": state.averaged_flow, "prior": final, "config": config, "digests": np.unique(digests)}


def _fit_and_train(
    data: TrainingData,
    flow: Mapping[str, Any],
    prior: PriorBlock,
    weight: float,
    seed: int,
    device: Device,
    progress: bool,
) -> tuple[TrainingState, GaussianPrior, dict[str, Any]]:
    """Train the first epochs, fit the Gaussians or learn them along with the flow, and train the remaining epochs.

    Returns:
        the final state, the Gaussians, and their record.
    """
    initial = start_training(data, flow, prior.start, seed, device, progress=progress)
    given, learned, record = initial.prior, None, describe_prior(prior, weight)
    traits = PRIORS[prior.method].traits
    if weight == 0 and traits.get("keeps_initial_at_zero", False):
        record = {"lambda": weight}
    elif traits["learned"]:
        learned = LearnedMethod.from_block(prior, weight)
    else:
        fitted = fit_prior(prior, initial.statistics, initial.prior, weight)
        given, record = fitted.prior, fitted.record
    state = continue_training(initial.state, given, data, device, learned=learned, progress=progress)
    return state, given, record


def _describe_validation(state: TrainingState, held_out: ImageSet | None) -> dict[str, Any]:
    """Return the last scores of the images held out, for the config; empty if there are none."""
    if held_out is None:
        return {}
    scores = {name: state.log[-1][f"validation_{name}"] for name in ("nf_acc", "bits_per_dim")}
    return {"validation": {"n": len(held_out), **scores}}


@contextmanager
def _training_device(device: torch.device | str | None, precision: str) -> Iterator[Device]:
    """Make the device of a fit; afterwards, restore the state of torch.

    This includes the current GPU, and the random generators of the CPU and of the CUDA GPU of the fit. Whether
    gradients are recorded, the precision, and the dtype and device of new tensors are as in a new process, whatever
    the caller has set.
    """
    with restored_settings(), standard_defaults(), full_precision(), torch.inference_mode(False):
        chosen = make_device(precision, device=None if device is None else torch.device(device))
        gpus = [chosen.device] if chosen.device.type == "cuda" else []
        with torch.random.fork_rng(devices=gpus), torch.enable_grad():
            yield chosen


# ---- Gaussians of a trained flow -------------------------------------------------------------------------------------


def estimate_again(
    config: Mapping[str, Any], statistics: ClassStatistics, how: Refit
) -> tuple[GaussianPrior, dict[str, Any]]:
    """Estimate the Gaussians of a model again from latents.

    Args:
        config: config of the model.
        statistics: statistics of the latents of the training images, with covariances if the prior has full ones.
        how: `moments`: means and variances, or covariances, of each class; `prior`: by the method of the prior with its
            λ.

    Returns:
        the Gaussians, and the new config, without what the former one says of the former Gaussians: `validation`,
        `following` and `calibration`.

    Raises:
        ValueError: `how` is neither; the method of the prior is not known, or learns the Gaussians along with the flow;
            or a class has too few latents.
        Diverged: the fit diverged.
    """
    if how not in REFITS:
        raise ValueError(f"how: expected {' or '.join(REFITS)}, received {how!r}")
    former: dict[str, Any] = {**config.get("prior", {}), "refit": how}
    if how == "moments":
        prior = estimate_moments(statistics)
        record = {name: value for name, value in former.items() if name not in ("iterations", "converged")}
    elif "method" in former:
        block = PRIORS.validate(former["settings"])
        fitted = fit_prior(block, statistics, initial_prior(statistics, block.start, config["seed"]), former["lambda"])
        prior, record = fitted.prior, former | fitted.record
    elif config.get("start") in BASELINE:  # λ = 0 keeps the initial Gaussians
        prior, record = initial_prior(statistics, config["start"], config["seed"]), former
    else:
        raise ValueError("refit: expected moments for a model whose prior has no known method, received prior")
    kept = {name: value for name, value in config.items() if name not in ("validation", "following", "calibration")}
    return prior.to("cpu"), {**kept, "prior": record}


def warn_unless_followed(mismatch: float | None) -> None:
    """Warn if the latents of the training images do not follow the Gaussians; None: the mismatch is not known."""
    if mismatch is not None and mismatch > MISMATCH_LIMIT:
        logger.warning(_ADVICE, mismatch, MISMATCH_LIMIT)
