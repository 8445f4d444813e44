"""The training of a flow: initial state, statistics of the latents, and epochs under a fixed or a learned prior.

A run is split in two so that the runs of all λ share their first epochs: :func:`start_training` initialises the flow
and the prior, trains the first epochs and returns the state; :func:`continue_training` resumes from this state, under
the fitted prior or one that is learned along with the flow. All randomness depends only on the seed of the run, the
epoch and the batch, so on a CPU a split run equals an unsplit one bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nfpi.config.base import Start
from nfpi.config.flows import FLOWS
from nfpi.config.priors import LearnedMethod
from nfpi.evaluation import check_shapes
from nfpi.flows.bijection import ImageFlow
from nfpi.flows.check import FlowError, check_flow
from nfpi.flows.registry import build_flow
from nfpi.linalg import precise_device
from nfpi.priors.gaussian import GaussianPrior
from nfpi.priors.registry import initial_prior, make_learner
from nfpi.priors.statistics import ClassStatistics
from nfpi.runtime.checkpoints import Checkpoints
from nfpi.runtime.device import Device
from nfpi.runtime.divergence import NOT_FINITE
from nfpi.runtime.precision import full_precision
from nfpi.runtime.randomness import derive_seed, seed_default_generators
from nfpi.training.batches import TrainingData, draw_initialization_images, latent_statistics
from nfpi.training.flow_training import FlowTraining
from nfpi.training.loop import load_checkpoint, make_loss_error
from nfpi.training.state import TrainingState

_CHECKED_IMAGES = 4
_CHECK_TOLERANCE = 0.02
"""largest error accepted in float64: the same as that accepted by default in float32"""


@dataclass(frozen=True)
class InitialState:
    """State from which the training under every λ resumes.

    Attributes:
        state: state of the training after the first epochs.
        prior: initial Gaussians, under which the first epochs were trained; float64.
        statistics: statistics of the training latents after these epochs, under the current (not the averaged) weights.
    """

    state: TrainingState
    prior: GaussianPrior
    statistics: ClassStatistics


def start_training(
    data: TrainingData,
    flow: Mapping[str, Any],
    start: Start,
    seed: int,
    device: Device,
    checkpoints: Checkpoints | None = None,
    tracked: Path | None = None,
    progress: bool | None = None,
) -> InitialState:
    """Initialise the flow on data, make the initial Gaussians, and train the epochs before the fit.

    Args:
        data: images and settings of the training.
        flow: description of the flow: `kind`, `shape` and `settings`, see :func:`nfpi.flows.registry.build_flow`.
        start: kind of initial Gaussians, see :func:`nfpi.priors.initial_prior`.
        seed: seed of the run.
        device: device of the training.
        checkpoints: store of states, to resume from after an interruption; None: no states are saved.
        tracked: folder of the files of :mod:`nfpi.training.tracking`; None: nothing is tracked.
        progress: whether a bar shows the steps; None: on a terminal only.

    Raises:
        FlowError: the flow fails :func:`nfpi.flows.check.check_flow` before these epochs or, if an extension registered
            it, after them.
        TrainingDiverged: the loss is not finite.
        Interrupted: a signal asked to stop during an epoch; the state is saved in the checkpoints. The passes over the
            training images before the first epoch and after the last one neither handle signals nor save a state.
    """
    until_epoch = data.config.fit_after_epochs
    with closing(data):
        resumed, statistics = _resume(checkpoints, data, device), None
        if resumed is not None:
            state, tensors = resumed
            prior = GaussianPrior(tensors["prior.mean"], tensors["prior.variance"]).to(precise_device(data.device))
        else:
            seed_default_generators(derive_seed(seed, "weights"), data.device)
            new_flow = _initialize_flow(flow, data, seed)
            statistics = latent_statistics(new_flow, data, seed)
            prior = initial_prior(statistics, start, seed)
            state = TrainingState.new(new_flow, data.config, seed, data.steps_per_epoch)
        if until_epoch or statistics is None:
            tensors = {"prior.mean": prior.mean, "prior.variance": prior.variance}
            training = FlowTraining(state, prior, data, device, until_epoch, tensors)
            training.run(checkpoints, tracked, progress)
            try:
                statistics = latent_statistics(state.flow, data, seed)
            except NOT_FINITE:  # the last step left weights for which the matrix exponential overflows
                fault = make_loss_error(state, data.config)
                fault.log = state.log
                raise fault from None
            # checked only after the latents are known to be finite: otherwise a diverged flow would be reported as one
            # with wrong formulas
            _check_trained_flow(state, data)
        return InitialState(state, prior, statistics)


def continue_training(
    state: TrainingState,
    prior: GaussianPrior,
    data: TrainingData,
    device: Device,
    checkpoints: Checkpoints | None = None,
    learned: LearnedMethod | None = None,
    tracked: Path | None = None,
    progress: bool | None = None,
) -> TrainingState:
    """Train the remaining epochs under a prior that is fixed, or is learned from `fit_after_epochs` on.

    A prior that is learned every epoch, or fitted again every few epochs, is updated before the first batch of the
    epoch, from one pass over the training images under the current (not the averaged) weights; the epoch is trained
    under the result. A prior that is learned every step is updated together with the flow, with the loss
    mean(−log p(x | y)) + λ/(K²(K−1)) L_KLD (:class:`nfpi.priors.PriorLearner`). For classes of equal size this is Eq. 4
    divided by K, as the likelihood in Eq. 4 is a sum over classes. Learned Gaussians are not averaged over steps: the
    validation uses the current ones, and `state.learner.prior` has the final ones.

    Args:
        state: state of the training, from :func:`start_training`.
        prior: K Gaussians in D = C·H·W dimensions; the initial ones if they are learned.
        data: images and settings of the training.
        device: device of the training.
        checkpoints: store of states, to resume from after an interruption; None: no states are saved.
        learned: method by which the Gaussians are learned; None: they are fixed.
        tracked: folder of the files of :mod:`nfpi.training.tracking`; None: nothing is tracked.
        progress: whether a bar shows the steps; None: on a terminal only.

    Raises:
        ValueError: state, prior, images and settings do not fit together.
        TrainingDiverged: the loss or a learned Gaussian is not finite.
        Interrupted: a signal asked to stop; the state is saved in the checkpoints.
    """
    check_shapes(state.flow, prior, data.train)
    if state.step != len(state.log) * data.steps_per_epoch:
        raise ValueError(
            f"state: expected {len(state.log)} epochs of {data.steps_per_epoch} steps, received step {state.step}: "
            "was it trained on other images, or with another batch_size?"
        )
    resumed = _resume(checkpoints, data, device, prior)
    if resumed is not None:
        state = resumed[0]
    if state.learner is None and learned is not None:
        state.learner = make_learner(learned, prior.to(precise_device(data.device)))
    found = state.learner.method if state.learner is not None else None
    if found != learned:
        raise ValueError(f"state: expected Gaussians learned by {learned!r}, received {found!r}")
    with closing(data):
        FlowTraining(state, prior, data, device, data.config.epochs).run(checkpoints, tracked, progress)
    return state


def _resume(
    checkpoints: Checkpoints | None, data: TrainingData, device: Device, initial: GaussianPrior | None = None
) -> tuple[TrainingState, Mapping[str, Tensor]] | None:
    """Load the state in the latest checkpoint, and all tensors of the file; None if there is no checkpoint."""
    found = load_checkpoint(checkpoints, device)
    if checkpoints is None or found is None:
        return None
    state = TrainingState.deserialize(checkpoints.path, *found, data.config, data.steps_per_epoch, data.device, initial)
    return state, found[0]


def _initialize_flow(description: Mapping[str, Any], data: TrainingData, seed: int) -> ImageFlow:
    """Build a flow, initialise it on images, and check its shapes, inverse and log-determinants on some of them.

    Raises:
        FlowError: the flow fails :func:`nfpi.flows.check.check_flow`.
    """
    flow = build_flow(description).to(data.device)
    images = draw_initialization_images(data, seed)
    with torch.no_grad():
        flow.initialize(images)
    check_flow(flow, images[:_CHECKED_IMAGES], jacobian=False)
    return flow


@full_precision()
def _check_trained_flow(state: TrainingState, data: TrainingData) -> None:
    """Repeat the check of :func:`_initialize_flow`, on the same images, for a trained flow of an extension.

    Couplings that begin with zeros pass the first check whatever their formulas are. The flow and the global random
    generators stay as they are.

    Args:
        state: state of the training; without a finished epoch nothing is checked.
        data: images and settings of the training.

    Raises:
        FlowError: the flow fails the check.
    """
    flow = state.flow
    if FLOWS[flow.kind].extension is None or not state.log:
        return
    images = draw_initialization_images(data, state.seed)[:_CHECKED_IMAGES]
    gpus = [data.device] if data.device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):  # a flow may draw random numbers
        try:
            check_flow(flow, images, jacobian=False)
        except FlowError as fault:
            if not _passes_in_float64(flow, images):
                raise FlowError(
                    f"training: after epoch {len(state.log)}: {fault} (a wrong formula, or, with a learning rate that "
                    "is too large, weights with which the flow cannot be inverted)"
                ) from None


def _passes_in_float64(flow: ImageFlow, images: Tensor) -> bool:
    """Return whether a flow passes the check in float64, so that only rounding in float32 made it fail."""
    try:
        check_flow(deepcopy(flow).double(), images.double(), jacobian=False, tolerance=_CHECK_TOLERANCE)
    except (FlowError, RuntimeError, TypeError):  # TypeError: the device has no float64
        return False
    return True
