"""Training of classifiers, by one loop for all models.

Random numbers depend only on the run's seed, the epoch and the batch, so on a CPU a resumed training equals an
uninterrupted one bit for bit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LinearLR, LRScheduler, OneCycleLR, SequentialLR
from tqdm import tqdm

from nfpi.classifiers.data import ClassifierData
from nfpi.classifiers.memory import checkpoint_activations, fuse_attention
from nfpi.classifiers.scoring import score_classifier
from nfpi.config.classifiers import ClassifierConfig
from nfpi.runtime.checkpoints import Checkpointer, Checkpoints, Snapshot, checkpointing
from nfpi.runtime.device import Device
from nfpi.runtime.divergence import NOT_FINITE, TrainingDiverged
from nfpi.runtime.job_log import record_epoch
from nfpi.runtime.randomness import derive_seed
from nfpi.runtime.tensors import FormatError

logger = logging.getLogger(__name__)

LogRow = dict[str, float]
BatchTransform = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Transform of a normalised batch: (images, labels) → (images, labels)."""
_STEPS_BETWEEN_CHECKS = 20


@dataclass(frozen=True)
class TrainedClassifier:
    """A classifier after its last epoch.

    Attributes:
        model: the trained model, on the device it was trained on.
        log: one row per epoch.
        validation_acc: accuracy on the validation images in percent; None: there are none.
    """

    model: nn.Module
    log: list[LogRow]
    validation_acc: float | None


@dataclass
class ClassifierState:
    """State of a training: everything that the next step depends on.

    Attributes:
        model: the model, on the device it is trained on.
        optimizer: SGD or AdamW, with its moments.
        schedule: schedule of the learning rate, stepped after every batch.
        seed: seed of the run.
        step: number of steps so far.
        epoch_loss: sum of the losses of the current epoch's images, ().
        log: one row per epoch.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: LRScheduler
    seed: int
    step: int
    epoch_loss: Tensor
    log: list[LogRow] = field(default_factory=list)

    @classmethod
    def new(cls, model: nn.Module, config: ClassifierConfig, seed: int, steps_per_epoch: int) -> ClassifierState:
        """Make the state before the first step."""
        optimizer = make_optimizer(model, config)
        device = next(model.parameters()).device
        return cls(
            model, optimizer, make_schedule(optimizer, config, steps_per_epoch), seed, 0, torch.zeros((), device=device)
        )

    def serialize(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the state as tensors and a JSON header."""
        names = [name for name, _ in self.model.named_parameters()]
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{names[index]}.{key}": value for key, value in moments.items() if value is not None}
        tensors["epoch_loss"] = self.epoch_loss
        return tensors, {
            "seed": self.seed,
            "step": self.step,
            "log": self.log,
            "learning_rates": [group["lr"] for group in self.optimizer.param_groups],
            "momenta": [group["momentum"] for group in self.optimizer.param_groups if "momentum" in group],
            "schedule": self.schedule.state_dict(),
        }

    def restore(self, path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
        """Restore the state that :meth:`serialize` returned, on the current device; errors name `path`.

        Raises:
            FormatError: the state belongs to another model or training.
        """

        def select_tensors(prefix: str) -> dict[str, Tensor]:
            return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}

        try:
            self.model.load_state_dict(select_tensors("model."))
            moments = {
                index: select_tensors(f"optimizer.{name}.")
                for index, (name, _) in enumerate(self.model.named_parameters())
            }
            moments = {index: found for index, found in moments.items() if found}
            self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
            self.schedule.load_state_dict(header["schedule"])
            for group, rate in zip(self.optimizer.param_groups, header["learning_rates"], strict=True):
                group["lr"] = rate
            for group, momentum in zip(self.optimizer.param_groups, header.get("momenta", ()), strict=False):
                group["momentum"] = momentum
            self.seed, self.step, self.log = int(header["seed"]), int(header["step"]), list(header["log"])
            self.epoch_loss.copy_(tensors["epoch_loss"])
        except (KeyError, RuntimeError, ValueError) as error:
            first_line = str(error).splitlines()[0]
            raise FormatError(
                f"{path}: expected a classifier's training state, received something else ({first_line})"
            ) from None


def make_optimizer(model: nn.Module, config: ClassifierConfig) -> torch.optim.Optimizer:
    """Make SGD with momentum, or AdamW (Loshchilov & Hutter, 2019)."""
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            model.parameters(), lr=config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay
        )
    return torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)


def make_schedule(optimizer: torch.optim.Optimizer, config: ClassifierConfig, steps_per_epoch: int) -> LRScheduler:
    """Make the schedule of the learning rate.

    one_cycle (Smith & Topin, 2019): from `learning_rate` up to `max_learning_rate` in 30 % of the steps, then down to
    `learning_rate`/10⁴, at constant momentum or, with `cycle_momentum`, momentum from 0.95 down to 0.85 and back.
    cosine (Loshchilov & Hutter, 2017): linearly up to `learning_rate`, then half a cosine wave down to 0.
    The warm-up is shorter than the training, which `config` checks.
    """
    steps, warmup = (epochs * steps_per_epoch for epochs in (config.epochs, config.warmup_epochs))
    match config.schedule:
        case "one_cycle":
            return OneCycleLR(
                optimizer,
                max_lr=config.max_learning_rate,
                total_steps=max(2, steps),
                div_factor=config.max_learning_rate / config.learning_rate,
                cycle_momentum=config.cycle_momentum,
            )
        case "constant":
            return LambdaLR(optimizer, lambda _: 1.0)
        case "cosine":
            if not (warmup and steps):
                return CosineAnnealingLR(optimizer, max(1, steps))
            rise, fall = (
                LinearLR(optimizer, 1 / warmup, total_iters=warmup),
                CosineAnnealingLR(optimizer, steps - warmup),
            )
            return SequentialLR(optimizer, [rise, fall], milestones=[warmup])


def train_classifier(
    model: nn.Module, data: ClassifierData, seed: int, device: Device, checkpoints: Checkpoints | None = None
) -> TrainedClassifier:
    """Train on the training images, and measure the accuracy on the validation images, if there are any.

    Args:
        model: normalised images (B, C, H, W) → (B, K) logits.
        data: images and settings; with 0 epochs the weights stay as they are.
        seed: seed of the order of images, the standard augmentations, the choice of latent-augmented variants, and
            dropout.
        device: device and precision.
        checkpoints: store of the training state, from which it is resumed; None: the state is not saved.

    Raises:
        TrainingDiverged: the loss is not finite.
        ValueError: the model does not return (B, K) logits, has batch normalisation although `accumulate` > 1, or does
            not support activation checkpointing.
        Interrupted: a signal asked to stop; the state is saved.
    """
    _check_accumulation(model, data.config)
    model = model.to(device.device)
    fuse_attention(model, device.device)
    if data.config.checkpoint_activations:
        checkpoint_activations(model)
    state = ClassifierState.new(model, data.config, seed, data.steps_per_epoch)
    found = checkpoints.load() if checkpoints is not None else None
    if checkpoints is not None and found is not None:
        state.restore(checkpoints.path, *found)
        device.load_state_dict(found[1]["precision"])

    def take_snapshot() -> Snapshot:
        _require_finite(state, data.config)
        tensors, header = state.serialize()
        return state.step, tensors, {**header, "precision": device.state_dict()}

    try:
        with closing(data), checkpointing(checkpoints, take_snapshot) as checkpointer:
            if data.config.epochs:
                _train(state, data, device, checkpointer)
            if not len(data.validation):
                return TrainedClassifier(model, state.log, None)
            with checkpointer.interruption.at_once():
                scores = score_classifier(
                    model, data.validation, data.preprocessing, device.device, workers=data.config.workers
                )
    except NOT_FINITE:
        fault = _make_divergence_error(state, data.config)
        fault.log = state.log
        raise fault from None
    logger.info("validation accuracy %.2f %%", scores.top1)
    return TrainedClassifier(model, state.log, scores.top1)


def _train(state: ClassifierState, data: ClassifierData, device: Device, checkpointer: Checkpointer) -> None:
    """Train from the state's step to the end of the last epoch."""
    config, steps_per_epoch = data.config, data.steps_per_epoch
    module, optimizer = device.setup(state.model, state.optimizer)
    change_batch = _make_batch_transform(data, device)
    normalize = data.preprocessing.make_normalizer(data.train.shape[0], device.device)
    steps = config.epochs * steps_per_epoch
    progress = tqdm(total=steps, initial=state.step, desc="classifier", unit="step", leave=False, disable=None)
    module.train()
    while state.step < steps:
        epoch, batch = divmod(state.step, steps_per_epoch)
        next_epoch = epoch + 1 if epoch + 1 < config.epochs else None
        for images, labels in data.stream(state.seed, epoch, batch, device.device, next_epoch):
            torch.manual_seed(derive_seed(state.seed, "classifier step", state.step))  # for mixup, dropout, ...
            images, targets = change_batch(normalize(images), labels)
            optimizer.zero_grad()
            losses = []  # per part, the sum of the losses of its images
            parts = zip(images.chunk(config.accumulate), targets.chunk(config.accumulate), strict=True)
            with device.fixed_shapes():
                for part, part_targets in parts:
                    logits = module(part)
                    _require_logits(logits, len(part), data.train.num_classes)
                    loss = F.cross_entropy(logits, part_targets, label_smoothing=config.label_smoothing)
                    device.backward(loss * (len(part) / len(labels)))
                    losses.append(loss.detach() * len(part))
            if config.gradient_clip:
                device.clip_gradients(module, optimizer, max_norm=config.gradient_clip)
            optimizer.step()
            state.schedule.step()
            state.step += 1
            for summed in losses:
                state.epoch_loss += summed
            progress.update()
            if state.step % _STEPS_BETWEEN_CHECKS == 0:
                _require_finite(state, config)
            if state.step % steps_per_epoch:  # the state at an epoch's end is saved below, with the log's row
                checkpointer.save_if_due()
        _close_epoch(state, data, epoch + 1)
        checkpointer.save_if_due(epoch_ended=True)
    progress.close()


def _make_batch_transform(data: ClassifierData, device: Device) -> BatchTransform:
    """Return the standard augmentations of a batch."""
    if data.standard is None:
        return lambda images, labels: (images, labels)
    from nfpi.classifiers.transforms import BatchAugmentation  # torchvision is slow to import

    return BatchAugmentation(data.standard, data.train.num_classes, device.device)


def _require_logits(logits: Tensor, batch: int, num_classes: int) -> None:
    if logits.shape != (batch, num_classes):
        raise ValueError(
            f"classifier: expected logits (B, K) = ({batch}, {num_classes}), received {tuple(logits.shape)}"
        )


def _check_accumulation(model: nn.Module, config: ClassifierConfig) -> None:
    if config.accumulate > 1 and any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        raise ValueError(
            "accumulate: expected 1 for a model with batch normalisation, whose statistics are those of whole batches, "
            f"received {config.accumulate}"
        )


def _close_epoch(state: ClassifierState, data: ClassifierData, epoch: int) -> None:
    """Add the epoch's row to the log."""
    _require_finite(state, data.config)
    mean_loss = float(state.epoch_loss) / data.images_per_epoch
    state.epoch_loss.zero_()
    rate = float(state.schedule.get_last_lr()[0])
    state.log.append({"epoch": epoch, "learning_rate": rate, "train_loss": mean_loss})
    record_epoch(epoch, data.config.epochs)
    logger.info("epoch %d/%d: train loss %.4f", epoch, data.config.epochs, mean_loss)


def _require_finite(state: ClassifierState, config: ClassifierConfig) -> None:
    if not torch.isfinite(state.epoch_loss):
        raise _make_divergence_error(state, config)


def _make_divergence_error(state: ClassifierState, config: ClassifierConfig) -> TrainingDiverged:
    setting = "max_learning_rate" if config.schedule == "one_cycle" else "learning_rate"
    return TrainingDiverged(
        f"classifier: the loss is not finite by step {state.step} (seed {state.seed}): try a smaller {setting} "
        f"(now {getattr(config, setting):g}) or a gradient_clip (now {config.gradient_clip:g}; 0: off)",
        state.step,
        "loss of the classifier",
    )
