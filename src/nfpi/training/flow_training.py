"""The steps and epochs of a flow that is trained by maximum likelihood."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nfpi.config.flows import TrainingConfig
from nfpi.evaluation import evaluate_flow
from nfpi.flows.series import SeriesBounds
from nfpi.priors.gaussian import GaussianPrior
from nfpi.runtime.checkpoints import Checkpoints
from nfpi.runtime.device import Device, choose_compiler
from nfpi.runtime.divergence import NOT_FINITE
from nfpi.runtime.signals import Interruption
from nfpi.training.batches import TrainingData
from nfpi.training.epoch_prior import (
    FixedPrior,
    LearnedPrior,
    compute_learning_progress,
    prepare_epoch_prior,
)
from nfpi.training.likelihood import NegativeLogLikelihood
from nfpi.training.loop import LogRow, Training, make_loss_error, train
from nfpi.training.optimizers import compute_learning_rate
from nfpi.training.state import TrainingState, require_finite
from nfpi.training.tracking import tracking

logger = logging.getLogger(__name__)


class FlowTraining(Training):
    """The training of a flow by maximum likelihood, from a state to the end of an epoch.

    Couplings compute e^S by a power series, whose length depends on a bound of the entries of S. If the steps are
    compiled or made on a GPU, the same bounds are held for many steps (:class:`nfpi.flows.series.SeriesBounds`).
    Otherwise every step computes the bounds from the weights, which is cheap on a CPU.

    Args:
        state: state of the training.
        prior: the Gaussians, or the initial ones if they are learned.
        data: images and settings of the training.
        device: device of the training.
        until_epoch: number of epochs after which it ends.
        extra_tensors: further tensors of its checkpoints.
    """

    state: TrainingState
    config: TrainingConfig

    def __init__(
        self,
        state: TrainingState,
        prior: GaussianPrior,
        data: TrainingData,
        device: Device,
        until_epoch: int,
        extra_tensors: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.state, self.config, self.device = state, data.config, device
        self.steps_per_epoch = data.steps_per_epoch
        self._extra_tensors = extra_tensors or {}
        self._prior, self._data, self._until_epoch = prior, data, until_epoch
        self._epoch_prior: FixedPrior | LearnedPrior = FixedPrior(prior, data.device)
        self._track: Callable[[TrainingState, GaussianPrior], None]
        compiler = choose_compiler(self.config.compile, data.device)
        if self.config.posterior_weight:  # log p(y | x) breaks the graph, by the cache of its Gaussians in float64
            compiler = None
        self._holds_bounds = compiler is not None or data.device.type != "cpu"
        held = (state.series_bounds, state.series_largest) if self._holds_bounds else (None, None)
        self._bounds = SeriesBounds(state.flow, *held)
        own = data.processes.get_slice(data.count_images(0))
        self._batch_size = own.stop - own.start
        self._objective = NegativeLogLikelihood(state.flow, compiler, self._batch_size, self.config.posterior_weight)
        self._likelihood = device.setup(self._objective).train()
        self._record_bounds()

    def run(self, checkpoints: Checkpoints | None, tracked: Path | None, progress: bool | None) -> None:
        """Train; see :func:`continue_training` for the arguments."""
        pixels = self._batch_size * math.prod(self.state.flow.shape[1:])
        with (
            self.device.limit_threads(self.state.flow, pixels),
            tracking(tracked if self._data.processes.first else None, self._data, self.state.log) as track,
        ):
            self._track = track
            try:
                train(self, self._until_epoch, checkpoints, progress)
            finally:
                self._bounds.release()

    def load_batches(self, epoch: int, start_batch: int, interruption: Interruption) -> Iterator[tuple[Tensor, Tensor]]:
        """Make any fit of the Gaussians that is due, and iterate over the batches of an epoch."""
        state, data = self.state, self._data
        self.choose_bounds(epoch_begins=start_batch == 0)
        self._epoch_prior = prepare_epoch_prior(state, self._prior, data, interruption)
        yield from data.stream(state.seed, epoch, start_batch)

    def choose_bounds(self, epoch_begins: bool) -> None:
        """Choose bounds of the series if an epoch begins or none are chosen yet; no-op if every step computes them."""
        if self._holds_bounds and (epoch_begins or self._bounds.held is None) and self._bounds.choose():
            self._objective.forget_graphs()
        self._record_bounds()

    def step(self, images: Tensor, labels: Tensor) -> None:
        """Make a step of the flow, and of Gaussians that are learned along with it.

        The loss is the mean of −log p(x | y) − γ log p(y | x) over the images of all processes, with that of learned
        Gaussians; γ is `posterior_weight`.

        Raises:
            TrainingDiverged: a coupling cannot sum its series.
        """
        state, data, prior = self.state, self._data, self._epoch_prior
        for group in state.optimizer.param_groups:
            group["lr"] = compute_learning_rate(self.config, state.step + 1, self.config.epochs * self.steps_per_epoch)
        # gradients are averaged over the processes; the factor gives every image the same weight
        weight = len(labels) / data.count_images(state.step % self.steps_per_epoch) * data.processes.count
        with self.device.fixed_shapes():
            try:
                nll, loss = self.device.forward(self._likelihood, prior.get_gaussians(), images, labels)
            except NOT_FINITE:  # a coupling cannot sum its series once its weights have diverged
                self.check()
                raise make_loss_error(state, self.config, state.step + 1) from None
            state.optimizer.zero_grad()
            self.device.backward(prior.compute_loss(loss * weight))
        self.device.step(state.optimizer, self.config.gradient_clip)
        prior.step(compute_learning_progress(state, data))
        state.step += 1
        state.average.update(state.step)
        self._bounds.watch()
        state.epoch_loss += data.processes.sum(nll.detach().sum())

    def check(self) -> None:
        """Check that the loss is finite and learned Gaussians are valid."""
        require_finite(self.state, self.config, len(self.state.log) + 1)

    def check_steps(self) -> None:
        """Check the state, and renew bounds of couplings that the weights have exceeded."""
        self.check()
        if self._bounds.renew_exceeded(self.state.step):
            self._objective.forget_graphs()
            self._record_bounds()

    def serialize(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the state and the extra tensors."""
        tensors, header = self.state.serialize()
        return {**tensors, **self._extra_tensors}, header

    def end_epoch(self, seconds: float, interruption: Interruption) -> None:
        """Add the epoch's row to the log, with scores of the validation split where they are due."""
        state, data = self.state, self._data
        mean_nll = state.epoch_loss.cpu() / len(data.train)
        prior, objective = self._epoch_prior.summarize_epoch(mean_nll.item())
        row = self._make_row(mean_nll, objective, seconds)
        config, epoch = data.config, len(state.log) + 1
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
                )
            row |= {"validation_bits_per_dim": scores.bits_per_dim, "validation_nf_acc": scores.nf_acc}
            line += f"; validation {scores.bits_per_dim:.4f} bits/dim, NF-Acc {scores.nf_acc:.2f} %"
        state.log.append(row)
        logger.info(line)
        self._track(state, prior)  # before the checkpoint: a run resumed from it does not track this epoch again

    def _make_row(self, mean_nll: Tensor, objective: float | None, seconds: float) -> LogRow:
        """Make the epoch's row of the log, without scores of the validation split."""
        state, data = self.state, self._data
        config, dimensions = data.config, torch.Size(data.train.shape).numel()
        series_lengths = self._bounds.count_products()
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

    def _record_bounds(self) -> None:
        self.state.series_bounds, self.state.series_largest = self._bounds.held, self._bounds.largest
