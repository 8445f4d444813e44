"""The training of a flow: initial state, statistics of the latents, and epochs under a fixed or a learned prior.

A run is split in two so that the runs of all λ share their first epochs: :func:`start_training` initialises the flow
and the prior, trains the first epochs and returns the state; :func:`continue_training` resumes from this state, under
the fitted prior or one that is learned along with the flow. All randomness depends only on the seed of the run, the
epoch and the batch, so on a CPU a split run equals an unsplit one bit for bit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nfpi.config.base import Start
from nfpi.config.priors import LearnedMethod
from nfpi.evaluation import check_shapes, evaluate_flow
from nfpi.linalg import precise_device
from nfpi.priors.gaussian import GaussianPrior
from nfpi.priors.registry import initial_prior, make_learner
from nfpi.priors.statistics import ClassStatistics
from nfpi.runtime.checkpoints import Checkpoints
from nfpi.runtime.compiler import choose_compiler
from nfpi.runtime.device import Device
from nfpi.runtime.divergence import NOT_FINITE, TrainingDiverged
from nfpi.runtime.job_log import record_epoch
from nfpi.runtime.randomness import derive_seed, seed_default_generators
from nfpi.runtime.signals import Interruption
from nfpi.training.batches import STATISTICS_EPOCH, TrainingData, latent_statistics
from nfpi.training.epoch_prior import (
    FixedPrior,
    LearnedPrior,
    compute_learning_progress,
    is_pass_due_before,
    prepare_epoch_prior,
)
from nfpi.training.initial_flow import check_trained_flow, initialize_flow
from nfpi.training.loop import LogRow, Training, load_checkpoint, make_loss_error, train
from nfpi.training.optimizers import compute_learning_rate
from nfpi.training.state import TrainingState, require_finite
from nfpi.training.step import TrainingStep
from nfpi.training.tracking import tracking

logger = logging.getLogger(__name__)


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
            new_flow = initialize_flow(flow, data, seed)
            statistics = latent_statistics(new_flow, data, seed, next_epoch=0 if until_epoch else None)
            prior = initial_prior(statistics, start, seed)
            state = TrainingState.new(new_flow, data.config, seed, data.steps_per_epoch)
        if until_epoch or statistics is None:
            training = FlowTraining(state, prior, data, device, until_epoch)
            training.extra_tensors = {"prior.mean": prior.mean, "prior.variance": prior.variance}
            training.epoch_after = STATISTICS_EPOCH
            training.run(checkpoints, tracked, progress)
            try:
                statistics = latent_statistics(state.flow, data, seed)
            except NOT_FINITE:  # the last step left weights for which the matrix exponential overflows
                fault = make_loss_error(state, data.config)
                fault.log = state.log
                raise fault from None
            # checked only after the latents are known to be finite: otherwise a diverged flow would be reported as one
            # with wrong formulas
            check_trained_flow(state, data)
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


class FlowTraining(Training):
    """The training of a flow by maximum likelihood, from a state to the end of an epoch.

    Args:
        state: state of the training.
        prior: the Gaussians, or the initial ones if they are learned.
        data: images and settings of the training.
        device: device of the training.
        until_epoch: number of epochs after which it ends.

    Attributes:
        extra_tensors: further tensors of its checkpoints.
        epoch_after: epoch whose first images are read in advance as the last epoch ends; None: no further epoch.
    """

    state: TrainingState

    def __init__(
        self, state: TrainingState, prior: GaussianPrior, data: TrainingData, device: Device, until_epoch: int
    ) -> None:
        self.state, self.device, self.steps_per_epoch = state, device, data.steps_per_epoch
        self.extra_tensors: Mapping[str, Tensor] = {}
        self.epoch_after: int | None = None
        self._prior, self._data, self._until_epoch = prior, data, until_epoch
        self._epoch_prior: FixedPrior | LearnedPrior = FixedPrior(prior, data.device)
        self._track: Callable[[TrainingState, GaussianPrior], None]
        own_slice = data.processes.get_slice(data.count_images(0))
        compiler = choose_compiler(data.config.compile, data.device)
        steps = data.config.epochs * data.steps_per_epoch
        self._step = TrainingStep(state, data.config, device, steps, own_slice.stop - own_slice.start, compiler)
        state.note_precision(device.precision)

    def run(self, checkpoints: Checkpoints | None, tracked: Path | None, progress: bool | None) -> None:
        """Train; see :func:`continue_training` for the arguments."""
        with tracking(tracked if self._data.processes.first else None, self._data, self.state.log) as track:
            self._track = track
            try:
                train(self, self._until_epoch, checkpoints, progress)
            finally:
                self._step.release_bounds()

    def load_batches(self, epoch: int, start_batch: int, interruption: Interruption) -> Iterator[tuple[Tensor, Tensor]]:
        """Make any fit of the Gaussians that is due, and iterate over the batches of an epoch."""
        state, data = self.state, self._data
        self._step.choose_bounds(epoch_begins=start_batch == 0)
        self._epoch_prior = prepare_epoch_prior(state, self._prior, data, interruption)
        next_epoch = self.epoch_after
        if epoch + 1 < self._until_epoch:
            next_epoch = STATISTICS_EPOCH if is_pass_due_before(epoch + 1, state, data) else epoch + 1
        yield from data.stream(state.seed, epoch, start_batch, next_epoch)

    def step(self, images: Tensor, labels: Tensor) -> None:
        """Make a step by the gradient of the mean of −log p(x | y) over the images of all processes."""
        state, data = self.state, self._data
        # gradients are averaged over the processes; the factor gives every image the same weight
        weight = len(labels) / data.count_images(state.step % self.steps_per_epoch) * data.processes.count
        nll = self._step(self._epoch_prior, images, labels, weight, compute_learning_progress(state, data))
        state.epoch_loss += data.processes.sum(nll.sum())

    def check(self) -> None:
        """Check that the loss is finite and learned Gaussians are valid."""
        require_finite(self.state, self._data.config, len(self.state.log) + 1)

    def check_steps(self) -> None:
        """Check the state, and renew bounds of couplings that the weights have exceeded."""
        self.check()
        self._step.renew_exceeded_bounds()

    def make_error(self) -> TrainingDiverged:
        """Make the exception for a loss that is not finite."""
        return make_loss_error(self.state, self._data.config)

    def serialize(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the state and the extra tensors."""
        tensors, header = self.state.serialize()
        return {**tensors, **self.extra_tensors}, header

    def end_epoch(self, seconds: float, interruption: Interruption) -> None:
        """Add the epoch's row to the log, with scores of the validation split where they are due."""
        state, data = self.state, self._data
        mean_nll = state.epoch_loss.cpu() / len(data.train)
        prior, objective = self._epoch_prior.summarize_epoch(mean_nll.item())
        row = self._make_row(mean_nll, objective, seconds)
        config, epoch = data.config, len(state.log) + 1
        record_epoch(epoch, config.epochs)
        line = f"epoch {epoch}/{config.epochs}: train {row['train_bits_per_dim']:.4f} bits/dim, {seconds:.1f} s"
        if objective is not None:
            line += f"; prior {objective:.6g}"
        due = epoch % config.evaluate_every == 0 or epoch == config.epochs
        if data.processes.first and data.validation is not None and due:
            with interruption.at_once():
                scores = evaluate_flow(
                    state.averaged_flow,
                    prior,
                    data.validation,
                    batch_size=config.batch_size,
                    seed=state.seed,
                    domain=data.domain,
                    device=data.device,
                )
            row |= {"validation_bits_per_dim": scores.bits_per_dim, "validation_nf_acc": scores.nf_acc}
            line += f"; validation {scores.bits_per_dim:.4f} bits/dim, NF-Acc {scores.nf_acc:.2f} %"
        state.epoch_loss.zero_()
        state.log.append(row)
        logger.info(line)
        self._track(state, prior)  # before the checkpoint: a run resumed from it does not track this epoch again

    def _make_row(self, mean_nll: Tensor, objective: float | None, seconds: float) -> LogRow:
        """Make the epoch's row of the log, without scores of the validation split."""
        state, data = self.state, self._data
        config, dimensions = data.config, torch.Size(data.train.shape).numel()
        series_lengths = self._step.count_products()
        return {
            "epoch": len(state.log) + 1,
            "step": state.step,
            "learning_rate": compute_learning_rate(config, state.step, config.epochs * self.steps_per_epoch),
            "train_bits_per_dim": float(data.domain.bits_per_dim(mean_nll, dimensions)),
            "prior_loss": objective,
            "validation_bits_per_dim": None,
            "validation_nf_acc": None,
            "series_terms": sum(series_lengths) / len(series_lengths) if series_lengths else None,
            "series_terms_max": max(series_lengths, default=None),
            "seconds": round(seconds, 3),
        }
