"""One training loop for the classifiers: SGD under the one-cycle schedule (Smith and Topin, 2019)."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn
from tqdm import tqdm

from nfpi.config import ClassifierConfig
from nfpi.data import ImageSet, batches, classifier_transform, num_batches
from nfpi.randomness import derive_seed

logger = logging.getLogger(__name__)

_EVALUATION_BATCH = 500


@dataclass(frozen=True)
class TrainedClassifier:
    """A classifier after its last epoch.

    Attributes:
        model: on the device it was trained on.
        log: a row for each epoch.
        validation_acc: percentage of real validation images classified correctly.
    """

    model: nn.Module
    log: list[dict[str, float]]
    validation_acc: float


def joined(first: ImageSet, second: ImageSet) -> ImageSet:
    """Both sets as one, in memory."""
    if first.shape != second.shape or first.num_classes != second.num_classes:
        raise ValueError(
            f"image sets: expected {first.shape} and {first.num_classes} classes in both, "
            f"received {second.shape} and {second.num_classes}"
        )
    if first.classes != second.classes:
        raise ValueError(f"image sets: expected the classes {first.classes} in both, received {second.classes}")
    return ImageSet(
        np.concatenate([first.images, second.images]),
        np.concatenate([first.labels, second.labels]),
        first.meta,
    )


def train_classifier(
    model: nn.Module,
    train: ImageSet,
    validation: ImageSet,
    config: ClassifierConfig,
    seed: int,
    fabric: Fabric,
) -> TrainedClassifier:
    """Train on one image set and measure on another.

    Args:
        model: (B, C, H, W) in [−1, 1] → (B, K) logits.
        train: real images, generated ones, or both.
        validation: real images.
        config: optimizer, schedule, augmentation.
        seed: order and augmentation.
        fabric: device and precision.

    Raises:
        ArithmeticError: the loss is not finite.
    """
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )
    module, optimizer = fabric.setup(model, optimizer)
    # an image alone in the last batch would have no variance to be normalised by
    drop_last = len(train) > 1 and len(train) % config.batch_size == 1
    steps = config.epochs * num_batches(len(train), config.batch_size, drop_last)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=config.max_learning_rate,
        total_steps=max(2, steps),
        div_factor=config.max_learning_rate / config.learning_rate,
        cycle_momentum=False,
    )
    transform = classifier_transform(config.crop_padding, train.shape, train.meta["extra"]["flip"])
    log: list[dict[str, float]] = []
    progress = tqdm(total=steps, desc="classifier", unit="step", leave=False, disable=None)
    for epoch in range(config.epochs):
        module.train()
        total = torch.zeros((), device=fabric.device)
        for images, labels in batches(
            train,
            config.batch_size,
            seed=derive_seed(seed, "classifier"),
            epoch=epoch,
            shuffle=True,
            transform=transform,
            workers=config.workers,
            pin_memory=fabric.device.type == "cuda",
            drop_last=drop_last,
        ):
            loss = F.cross_entropy(module(normalized(images.to(fabric.device))), labels.to(fabric.device))
            optimizer.zero_grad()
            fabric.backward(loss)
            optimizer.step()
            schedule.step()
            total += loss.detach() * len(labels)
            progress.update()
        mean_loss = float(total) / (len(train) - drop_last)
        if not np.isfinite(mean_loss):
            raise ArithmeticError(
                f"classifier: the loss is not finite in epoch {epoch + 1}: try a smaller max_learning_rate "
                f"(now {config.max_learning_rate:g})"
            )
        log.append({"epoch": epoch + 1, "learning_rate": float(schedule.get_last_lr()[0]), "train_loss": mean_loss})
        logger.info("epoch %d/%d: train loss %.4f", epoch + 1, config.epochs, mean_loss)
    progress.close()
    accuracy = classifier_accuracy(model, validation, fabric.device)
    logger.info("validation accuracy %.2f %%", accuracy)
    return TrainedClassifier(model, log, accuracy)


@torch.no_grad()
def classifier_accuracy(model: nn.Module, image_set: ImageSet, device: torch.device) -> float:
    """Percentage of images whose largest logit is that of their label."""
    model.eval()
    correct = 0
    for images, labels in batches(image_set, _EVALUATION_BATCH, seed=0):
        logits = model(normalized(images.to(device)))
        correct += int((logits.argmax(1).cpu() == labels).sum())
    return 100 * correct / len(image_set)


def normalized(images: Tensor) -> Tensor:
    """8-bit images (B, C, H, W) in [−1, 1]."""
    return images.float() / 127.5 - 1
