"""Initial state, fit of the Gaussians and training of a flow in one call, in memory."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import RLock
from typing import Any, Self

import torch

from nfpi.config.base import NonNegativeFloat, Seed, Settings
from nfpi.config.metrics import MISMATCH_LIMIT
from nfpi.config.priors import PRIORS, LearnedMethod, PriorBlock
from nfpi.data.store import ImageSet, digest_images
from nfpi.flows.registry import describe_flow
from nfpi.model.inputs import Images, Labels, make_sets
from nfpi.model.refitting import RefittableFlow
from nfpi.model.settings import choose_flow, choose_prior, choose_training, choose_weight, parse_settings
from nfpi.model.trained import describe_images
from nfpi.priors.gaussian import GaussianPrior
from nfpi.priors.registry import describe_prior, fit_prior
from nfpi.runtime.device import Device, make_device, restored_settings
from nfpi.runtime.precision import full_precision, standard_defaults
from nfpi.training.batches import TrainingData
from nfpi.training.flow import continue_training, start_training
from nfpi.training.state import TrainingState

Validation = float | tuple[Any, Any] | None
"""Share of the images to hold out, (images, labels), or None."""
logger = logging.getLogger(__name__)
_FIT = RLock()
"""held by a running fit, as fits change settings and generators of torch that all threads share"""
_ADVICE = (
    "the flow does not follow its Gaussians: its training images need %.2f bits/dim more under them than under the "
    "means and variances of their latents (expected at most %g), so samples lie where there are few images; more "
    "epochs, smaller batches or a smaller weight may help, or refit(images, labels)"
)


class _Plain(Settings):
    """Scalar arguments of a fit."""

    weight: NonNegativeFloat | None
    relative_weight: NonNegativeFloat | None
    flip: bool
    name: str | None
    seed: Seed


class FittedFlow(RefittableFlow):
    """A trained flow that can be fitted to images in memory; base class of :class:`nfpi.ClassConditionalFlow`."""

    @classmethod
    def fit(
        cls,
        images: Images,
        labels: Labels,
        *,
        weight: float | None = None,
        relative_weight: float | None = None,
        validation: Validation = None,
        epochs: int | None = None,
        classes: Sequence[str] | None = None,
        flow: str | Mapping[str, Any] | None = None,
        training: Mapping[str, Any] | None = None,
        prior: str | Mapping[str, Any] | None = None,
        flip: bool = False,
        name: str | None = None,
        seed: int = 0,
        device: torch.device | str | None = None,
        progress: bool = True,
    ) -> Self:
        """Initialise a flow on images, fit the class Gaussians to its latents, and train it under them.

        Calls the same functions as the stages of the workflow, without writing files. Called on a model, it returns a
        new one, and leaves that model as it is.

        Fits in several threads run one after the other. A fit uses torch's global random generator and restores it at
        the end, so other threads must not use it meanwhile.

        One more pass over the training images measures whether the flow follows its Gaussians
        (:meth:`measure_following`): `following` of the model's config, with a warning if it does not.

        Args:
            images: (N, H, W, C), uint8. Grey images may be (N, H, W), unless W is 1 to 4.
            labels: (N,), indices of classes or their names.
            weight: λ of Eq. 4, how strongly the Gaussians repel each other; at 0, the fixed point keeps the initial
                Gaussians, as in the workflow. None: that of the relative weight.
            relative_weight: s₀ in place of λ, which has the same effect for every number of classes and pixels, see
                :func:`nfpi.config.priors.compute_weight`; None: 1, unless `weight` is given.
            validation: share of the images to hold out, or (images, labels); the model's card has the scores on them.
            epochs: passes over the training images; None: those of `training`, by default at least 20, and so many that
                there are at least 800 steps.
            classes: names of the K classes that labels index; None: the names in `labels`, sorted, or
                "0" … "K − 1".
            flow: kind of flow ("matrix_exponential", "glow", "transformer") or its settings, as under `flows:` in
                config.yaml; None: "matrix_exponential". The settings of a kind given by its name depend on the size of
                the images, see :func:`nfpi.model.settings.choose_default_settings`.
            training: settings that differ from those of :func:`nfpi.model.settings.choose_training`. As no files are
                written, `checkpoint_minutes`, `tracking` and `sample_every_epochs` have no effect.
            prior: method of the Gaussians or its settings, as under `priors:` in config.yaml; None: the fixed point.
            flip: whether mirrored images still belong to their class, for augmentations that mirror; the
                augmentation "flip" requires True.
            name: name of the data set, for the model's card.
            seed: seed of all random numbers.
            device: device to train on; None: a GPU if available.
            progress: whether to show a progress bar; if the output is no terminal, it is renewed every ten seconds.

        Raises:
            ValueError: images, labels or a setting are invalid.
            Diverged: the fit of the Gaussians or the training diverged; the message says what to change.
        """
        given = {"weight": weight, "relative_weight": relative_weight, "flip": flip, "name": name, "seed": seed}
        plain = parse_settings(_Plain, given)
        seed = plain.seed
        train, held_out = make_sets(images, labels, classes, validation, flip=plain.flip, name=plain.name, seed=seed)
        channels, height, width = train.shape
        block = choose_flow(flow, height, width)
        changes = {**block.training, **(training or {})}
        config = choose_training(changes, epochs, block.kind, max(height, width), len(train))
        if config.augmentation == "flip" and not plain.flip:
            raise ValueError("flip: expected True with augmentation 'flip', which otherwise has no effect")
        method = choose_prior(prior)
        dimensions = channels * height * width
        strength = choose_weight(plain.weight, plain.relative_weight, method, len(train.classes), dimensions)
        with _training_device(device, config.precision) as place:
            data = TrainingData(train, held_out, config, place.device)
            description = describe_flow(block, train.shape)
            state, fitted, record = _fit_and_train(data, description, method, strength, seed, place, progress)
        model = cls.from_training(
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
        found = model.measure_following(train.images, train.labels)
        model._record_following(found)
        if found.mismatch is not None and found.mismatch > MISMATCH_LIMIT:
            logger.warning(_ADVICE, found.mismatch, MISMATCH_LIMIT)
        return model


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

    This includes the current GPU, and the random generators of the CPU and of the CUDA GPU of the fit. Fits run one at
    a time. Whether gradients are recorded, the precision, and the dtype and device of new tensors are as in a new
    process, whatever the caller has set.
    """
    with _FIT, restored_settings(), standard_defaults(), full_precision(), torch.inference_mode(False):
        chosen = make_device(precision, device=None if device is None else torch.device(device))
        gpus = [chosen.device] if chosen.device.type == "cuda" else []
        with torch.random.fork_rng(devices=gpus), torch.enable_grad():
            yield chosen
