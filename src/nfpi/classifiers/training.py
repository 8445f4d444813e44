"""Training of classifiers: cross-entropy on augmented images, by the loop that also trains flows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from nfpi.classifiers.data import ClassifierData
from nfpi.classifiers.scoring import score_classifier
from nfpi.config.classifiers import ClassifierConfig
from nfpi.runtime.checkpoints import Checkpoints
from nfpi.runtime.device import Device
from nfpi.runtime.randomness import derive_seed, make_generator
from nfpi.runtime.signals import Interruption
from nfpi.training.loop import State, Training, load_checkpoint, train
from nfpi.training.optimizers import make_optimizer, make_schedule

logger = logging.getLogger(__name__)

BatchTransform = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Transform of a normalised batch: (images, labels) → (images, labels)."""


@dataclass(kw_only=True)
class ClassifierState(State):
    """Everything that the next step of a classifier depends on.

    Attributes:
        schedule: schedule of the learning rate, stepped after every batch.
    """

    name: ClassVar[str] = "classifier"
    schedule: LRScheduler

    @classmethod
    def new(cls, model: nn.Module, config: ClassifierConfig, seed: int, steps_per_epoch: int) -> ClassifierState:
        """Make the state before the first step."""
        optimizer = make_optimizer(model, config)
        zero = torch.zeros((), device=next(model.parameters()).device)
        schedule = make_schedule(optimizer, config, steps_per_epoch)
        return cls(module=model, optimizer=optimizer, schedule=schedule, seed=seed, epoch_loss=zero)

    def serialize(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the state as tensors and a JSON header."""
        tensors, header = super().serialize()
        groups = self.optimizer.state_dict()["param_groups"]  # learning rate and momentum, which the schedule changes
        return tensors, {**header, "groups": groups, "schedule": self.schedule.state_dict()}

    def restore(self, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
        """Restore the state that :meth:`serialize` returned, on the current device."""
        super().restore(tensors, header)
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "param_groups": header["groups"]})
        self.schedule.load_state_dict(header["schedule"])


def train_classifier(
    model: nn.Module, data: ClassifierData, seed: int, device: Device, checkpoints: Checkpoints | None = None
) -> ClassifierTraining:
    """Train on the training images, and measure the accuracy on the validation images, if there are any.

    Args:
        model: normalised images (B, C, H, W) → (B, K) logits; a method `fit` is first called with all training images
            (N, C, H, W), their labels (N,), all validation images and theirs.
        data: images and settings; with 0 epochs the weights stay as they are.
        seed: seed of the order of images, the standard augmentations, the choice of latent-augmented variants, and
            dropout.
        device: device and precision.
        checkpoints: store of the training state, from which it is resumed; None: the state is not saved.

    Returns:
        The training after its last epoch.

    Raises:
        TrainingDiverged: the loss is not finite.
        ValueError: the model has batch normalisation although `accumulate` > 1, or does not support activation
            checkpointing.
        Interrupted: a signal asked to stop; the state is saved.
    """
    if hasattr(model, "fit"):
        _fit_in_closed_form(model, data, seed)
    model = place_model(model, data.config, device.device)
    state = ClassifierState.new(model, data.config, seed, data.steps_per_epoch)
    found = load_checkpoint(checkpoints, device)
    if found is not None:
        state.restore(*found)
    training = ClassifierTraining(state, data, device)
    with closing(training.loader):
        train(training, data.config.epochs, checkpoints)
    return training


class ClassifierTraining(Training):
    """The training of a classifier by the cross-entropy of augmented images.

    Args:
        state: state of the training.
        data: images and settings of the training.
        device: device and precision of the training.

    Attributes:
        loader: loader of its batches.
        validation_acc: accuracy on the validation images after the last epoch, in percent; None: there are none.
    """

    state: ClassifierState
    config: ClassifierConfig

    def __init__(self, state: ClassifierState, data: ClassifierData, device: Device) -> None:
        self.state, self.config, self.device = state, data.config, device
        self.steps_per_epoch = data.steps_per_epoch
        self.validation_acc: float | None = None
        self._data, self.loader = data, data.make_loader(state.seed, device.device)
        self._module = device.setup(state.module)
        self._augment = _make_batch_transform(data, device)
        self._normalize = data.preprocessing.make_normalizer(data.train.shape[0], device.device)

    def load_batches(self, epoch: int, start_batch: int, interruption: Interruption) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over the batches of an epoch."""
        self._module.train()
        order, place = derive_seed(self.state.seed, "classifier"), self.device.device
        batches = self.loader.load_epoch(epoch, seed=order, start_batch=start_batch)
        for images, labels in batches:
            yield images.to(place, non_blocking=True), labels.to(place, non_blocking=True)

    def step(self, images: Tensor, labels: Tensor) -> None:
        """Make a step by the gradient of the mean cross-entropy of a batch, which may be split into parts."""
        state, config, device = self.state, self.config, self.device
        torch.manual_seed(derive_seed(state.seed, "classifier step", state.step))  # for mixup, dropout, ...
        images, targets = self._augment(self._normalize(images), labels)
        state.optimizer.zero_grad()
        losses = []  # per part, the sum of the losses of its images
        parts = zip(images.chunk(config.accumulate), targets.chunk(config.accumulate), strict=True)
        with device.fixed_shapes():
            for part, part_targets in parts:
                logits = device.forward(self._module, part)
                loss = F.cross_entropy(logits, part_targets, label_smoothing=config.label_smoothing)
                device.backward(loss * (len(part) / len(labels)))
                losses.append(loss.detach() * len(part))
        device.step(state.optimizer, config.gradient_clip)
        state.schedule.step()
        state.step += 1
        for summed in losses:
            state.epoch_loss += summed

    def end_epoch(self, seconds: float, interruption: Interruption) -> None:
        """Add the epoch's row to the log."""
        state, epoch = self.state, len(self.state.log) + 1
        mean_loss = float(state.epoch_loss) / self._data.images_per_epoch
        rate = float(state.schedule.get_last_lr()[0])
        state.log.append({"epoch": epoch, "learning_rate": rate, "train_loss": mean_loss})
        logger.info("epoch %d/%d: train loss %.4f", epoch, self.config.epochs, mean_loss)

    def finish(self) -> None:
        """Measure the accuracy on the validation images."""
        data = self._data
        if len(data.validation):
            scores = score_classifier(
                self.state.module, data.validation, data.preprocessing, self.device.device, workers=data.config.workers
            )
            logger.info("validation accuracy %.2f %%", scores.top1)
            self.validation_acc = scores.top1


def _fit_in_closed_form(model: Any, data: ClassifierData, seed: int) -> None:
    """Call `model.fit` with all training and validation images, without augmentation; a density gets noise."""
    _, height, width = data.train.shape
    if height != width:
        raise ValueError(
            f"image_size: expected a size, as the images are not square, received none for {height}×{width}"
        )
    generator = make_generator("cpu", seed, "noise of a fit")
    given: list[Tensor] = []
    for split in (data.train, data.validation):
        images = torch.from_numpy(split.images[np.arange(len(split))]).permute(0, 3, 1, 2)
        normalize = data.preprocessing.make_normalizer(images.shape[1], torch.device("cpu"))
        noisy = data.preprocessing.add_noise(images, generator) if getattr(model, "is_density", False) else images
        given += [normalize(noisy), torch.from_numpy(np.array(split.labels))]
    model.fit(*given)


def _make_batch_transform(data: ClassifierData, device: Device) -> BatchTransform:
    """Return the standard augmentations of a batch."""
    if data.standard is None:
        return lambda images, labels: (images, labels)
    from nfpi.classifiers.transforms import BatchAugmentation  # torchvision is slow to import

    return BatchAugmentation(data.standard, data.train.num_classes, device.device)


def place_model(model: nn.Module, config: ClassifierConfig, device: torch.device) -> nn.Module:
    """Return the model on a device, prepared to be trained there.

    Raises:
        ValueError: it has batch normalisation although `accumulate` > 1, or does not support activation checkpointing.
    """
    if config.accumulate > 1 and any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        raise ValueError(
            "accumulate: expected 1 for a model with batch normalisation, whose statistics are those of whole batches, "
            f"received {config.accumulate}"
        )
    model = model.to(device)
    fuse_attention(model, device)
    if config.checkpoint_activations:
        checkpoint_activations(model)
    return model


def fuse_attention(model: nn.Module, device: torch.device) -> None:
    """Make timm's attention layers use torch's fused kernels on a GPU; on a CPU, do nothing.

    A fused kernel does not keep the scores of all pairs of tokens for the backward pass. timm's Swin does not use these
    kernels by default, and `TIMM_FUSED_ATTN=0` disables them for all models; here they are used regardless.
    """
    if device.type == "cuda":
        for module in model.modules():
            if hasattr(module, "fused_attn"):
                module.fused_attn = True  # type: ignore[assignment]  # typed as a tensor or a module


def checkpoint_activations(model: nn.Module) -> None:
    """Make a model of timm recompute the activations inside its blocks in the backward pass.

    The recomputation uses the same random numbers, so the gradients do not change.

    Raises:
        ValueError: the model does not support it.
    """
    set_checkpointing = getattr(model, "set_grad_checkpointing", None)
    if set_checkpointing is None:
        raise ValueError(
            "checkpoint_activations: expected false for a model without timm's set_grad_checkpointing, received true "
            f"for {type(model).__name__}"
        )
    set_checkpointing(True)
