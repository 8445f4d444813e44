"""The loop that trains flows and classifiers: steps and epochs, checkpoints, and the end when numbers are not finite.

What differs is a :class:`Training`: how batches are read, what a step is, and what an epoch records. All randomness
depends only on the seed of the run, the epoch and the batch, so on a CPU a resumed training equals an uninterrupted one
bit for bit.
"""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from nfpi.config.classifiers import ClassifierConfig
from nfpi.config.flows import TrainingConfig
from nfpi.runtime.checkpoints import Checkpoints
from nfpi.runtime.device import Device
from nfpi.runtime.divergence import NOT_FINITE
from nfpi.runtime.divergence import TrainingDiverged as TrainingDiverged
from nfpi.runtime.job_log import record_epoch
from nfpi.runtime.signals import Interrupted, Interruption, interruptible
from nfpi.runtime.tensors import load_state, select_prefix
from nfpi.training.optimizers import collect_moments, load_moments

LogRow = dict[str, float | int | None]

_STEPS_BETWEEN_CHECKS = 20
_SECONDS_BETWEEN_LINES = 10
"""of a progress bar in a file, where each state of it is a line"""
_LOSSES = ("train_bits_per_dim", "train_loss")
"""columns of a log that a progress bar shows"""


@dataclass(kw_only=True)
class State:
    """What the next step of every training depends on.

    Attributes:
        name: what is trained, `flow` or `classifier`.
        module: the module that is trained.
        optimizer: its optimizer, with its moments.
        seed: seed of the run.
        step: number of steps made.
        epoch_loss: sum of the losses of the current epoch's images so far; shape ().
        log: one row per epoch.
    """

    name: ClassVar[str]
    module: nn.Module
    optimizer: torch.optim.Optimizer
    seed: int
    step: int = 0
    epoch_loss: Tensor
    log: list[LogRow] = field(default_factory=list)

    def serialize(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the state as tensors and a JSON header."""
        tensors = {f"{self.name}.{name}": value for name, value in self.module.state_dict().items()}
        tensors |= {f"optimizer.{name}": value for name, value in collect_moments(self.optimizer, self.module).items()}
        tensors["epoch_loss"] = self.epoch_loss
        return tensors, {"seed": self.seed, "step": self.step, "log": self.log}

    def restore(self, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
        """Restore the result of :meth:`serialize`, on the current device.

        Raises:
            KeyError, RuntimeError, TypeError, ValueError: it is of another model or optimizer.
        """
        load_state(self.module, select_prefix(tensors, f"{self.name}."))
        load_moments(self.optimizer, self.module, select_prefix(tensors, "optimizer."))
        self.seed, self.step, self.log = header["seed"], header["step"], list(header["log"])
        self.epoch_loss.copy_(tensors["epoch_loss"])


def make_loss_error(
    state: State, config: TrainingConfig | ClassifierConfig, step: int | None = None
) -> TrainingDiverged:
    """Make the exception for a loss that became infinite or NaN at `step` (None: that of the state) or earlier."""
    step = state.step if step is None else step
    setting = "max_learning_rate" if config.schedule == "one_cycle" else "learning_rate"
    return TrainingDiverged(
        f"{'training' if state.name == 'flow' else state.name}: the loss is not finite by step {step} "
        f"(seed {state.seed}): try a smaller {setting} (now {getattr(config, setting):g}) or a gradient_clip "
        f"(now {config.gradient_clip:g}; 0: off)",
        step,
        f"loss of the {state.name}",
    )


class Training(ABC):
    """The part of a training that differs between flows and classifiers.

    Attributes:
        state: state of the training, updated in place.
        config: settings of the training.
        device: device, precision and processes of the training.
        steps_per_epoch: number of steps of an epoch.
    """

    state: State
    config: TrainingConfig | ClassifierConfig
    device: Device
    steps_per_epoch: int

    @abstractmethod
    def load_batches(self, epoch: int, start_batch: int, interruption: Interruption) -> Iterator[tuple[Tensor, Tensor]]:
        """Prepare an epoch, counted from 0, and iterate over its batches of images and labels on the device.

        Args:
            epoch: the epoch.
            start_batch: number of batches to skip; the others do not depend on it.
            interruption: lets a signal stop preparations that change no state.
        """

    @abstractmethod
    def step(self, images: Tensor, labels: Tensor) -> None:
        """Make a step on a batch, count it, and add the losses of its images to `epoch_loss`."""

    @abstractmethod
    def end_epoch(self, seconds: float, interruption: Interruption) -> None:
        """Add the epoch's row to the log; until then, a signal may stop an evaluation."""

    def check(self) -> None:
        """Check the state before it is saved, without changing it.

        Raises:
            TrainingDiverged: a number is not finite.
        """
        if not torch.isfinite(self.state.epoch_loss):
            raise make_loss_error(self.state, self.config)

    def check_steps(self) -> None:
        """Check the state every 20 steps and at the end of an epoch; unlike :meth:`check`, this may change it."""
        self.check()

    def finish(self) -> None:  # noqa: B027 (most trainings have nothing to do here)
        """Evaluate the state after the last epoch, without changing it: a signal may stop this at any point."""

    def serialize(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the tensors and the header of a checkpoint."""
        return self.state.serialize()


def load_checkpoint(checkpoints: Checkpoints | None, device: Device) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Load the tensors and the header of the latest checkpoint; None: there is none."""
    with device.processes.first_before_others():  # as load removes damaged checkpoints
        return checkpoints.load() if checkpoints is not None else None


def train(
    training: Training, until_epoch: int, checkpoints: Checkpoints | None = None, progress: bool | None = None
) -> None:
    """Train until the log has `until_epoch` rows.

    An epoch ends when its row is added to the log; a resumed state may have made all steps of an epoch that has no row.

    Args:
        training: the training, in a new or a resumed state.
        until_epoch: number of epochs.
        checkpoints: store of states, which the first process saves; None: no states are saved.
        progress: whether a bar shows the steps; None: on a terminal only.

    Raises:
        TrainingDiverged: a number is not finite; the exception has the log.
        Interrupted: a signal asked to stop; the state is saved in the checkpoints.
    """
    state, steps_per_epoch = training.state, training.steps_per_epoch
    bar = tqdm(
        total=training.config.epochs * steps_per_epoch,  # until_epoch may end a part of the training
        initial=state.step,
        desc=state.name,
        unit="step",
        leave=False,
        disable=None if progress is None else not progress,
        mininterval=0.1 if sys.stderr.isatty() else _SECONDS_BETWEEN_LINES,
    )

    store = checkpoints if training.device.processes.first else None
    try:
        with _saved_if_interrupted(training, store) as interruption:
            while len(state.log) < until_epoch:
                began, epoch = time.monotonic(), len(state.log)
                start_batch = state.step - epoch * steps_per_epoch
                for images, labels in training.load_batches(epoch, start_batch, interruption):
                    training.step(images, labels)
                    bar.update()
                    if state.step % _STEPS_BETWEEN_CHECKS == 0 or state.step % steps_per_epoch == 0:
                        training.check_steps()
                        bar.set_postfix(_summarize(state.log), refresh=False)
                    if store is not None and store.is_due():
                        _save(training, store)
                    interruption.check()
                training.end_epoch(time.monotonic() - began, interruption)
                state.epoch_loss.zero_()
                record_epoch(len(state.log), training.config.epochs)
                if store is not None and store.is_due(epoch_ended=True):
                    _save(training, store)
                interruption.check()
            with interruption.at_once():
                training.finish()
    except NOT_FINITE as fault:
        error = fault if isinstance(fault, TrainingDiverged) else make_loss_error(state, training.config)
        error.log = state.log
        raise error from None
    finally:
        bar.close()


def _summarize(log: list[LogRow]) -> dict[str, float | int | None]:
    """Return the last epoch and its loss for a progress bar; empty before the first has ended."""
    return {name: value for name, value in log[-1].items() if name == "epoch" or name in _LOSSES} if log else {}


@contextmanager
def _saved_if_interrupted(training: Training, checkpoints: Checkpoints | None) -> Iterator[Interruption]:
    """Save the state, which must be consistent, if a signal interrupts the block."""
    with interruptible() as interruption:
        try:
            yield interruption
            interruption.check()
        except Interrupted as interrupted:
            if checkpoints is not None:
                _save(training, checkpoints)
                interrupted.kept = str(checkpoints)
            raise


def _save(training: Training, checkpoints: Checkpoints) -> None:
    training.check()
    checkpoints.save(training.state.step, *training.serialize())
