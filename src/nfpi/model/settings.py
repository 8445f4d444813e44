"""Settings of :meth:`nfpi.ClassConditionalFlow.fit`: defaults by image size, and validation of those passed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from nfpi.config.base import Settings, explain
from nfpi.config.flows import FLOWS, FlowBlock, TrainingConfig, choose_batch_size, choose_epochs
from nfpi.config.priors import DEFAULT_RELATIVE_WEIGHT, PRIORS, PriorBlock, compute_weight, get_alpha

S = TypeVar("S", bound=Settings)

_SMALL, _MEDIUM = 16, 32
"""largest lengths of an image's longer side, in pixels, for two levels (small) and for three (medium)"""

_TRAINING: dict[str, dict[str, Any]] = {
    "glow": {"learning_rate": 0.003},
    "transformer": {"learning_rate": 0.003},
}
"""training settings that differ for a kind of flow"""


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

    Defaults: batch size and epochs by the number of images (:func:`nfpi.config.flows.choose_batch_size`,
    :func:`nfpi.config.flows.choose_epochs`); a warm-up of 100 steps, but at most a quarter of all; augmentation
    `shift` if the longer side exceeds 16 pixels, otherwise none; one evaluation, at the end; `fit_after_epochs` 0 for a
    single epoch, otherwise 1; a learning rate of 0.003 for Glow and transformer flows. The others are those of
    :class:`TrainingConfig`.

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
    batch_size = checked.batch_size if "batch_size" in given else choose_batch_size(num_images)
    epochs = checked.epochs if "epochs" in given else choose_epochs(num_images, batch_size)
    defaults = {
        "epochs": epochs,
        "batch_size": batch_size,
        "warmup_steps": min(100, epochs * -(-num_images // batch_size) // 4),
        "augmentation": "none" if side <= _SMALL else "shift",
        "evaluate_every": epochs,
        "fit_after_epochs": 0 if epochs == 1 else 1,
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
        ValueError: both are given, or λ is not given and the prior has no α.
    """
    if weight is not None and relative_weight is not None:
        raise ValueError("weight, relative_weight: expected one of them, received both")
    if weight is not None or not PRIORS[prior.method].traits["uses_weight"]:
        return weight or 0.0
    alpha = get_alpha(prior)
    if alpha is None:
        raise ValueError(f"weight: expected λ, since prior '{prior.method}' has no alpha, received none")
    chosen = DEFAULT_RELATIVE_WEIGHT if relative_weight is None else relative_weight
    return compute_weight(chosen, alpha, num_classes, num_dimensions)


def _parse_block(registry: Any, block: Any, what: str) -> Any:
    """Validate a block of config.yaml; raises ValueError in one line that begins with `what`."""
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
