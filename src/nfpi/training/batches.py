"""The images of a training: how they reach the flow, and the statistics of their latents."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from nfpi.config.settings import TrainingConfig
from nfpi.data.domain import Domain, domain_of
from nfpi.data.store import ImageSet
from nfpi.data.batches import batches, num_batches
from nfpi.data.transforms import training_transform
from nfpi.flows.matrix_exponential import MatrixExponentialFlow
from nfpi.linalg import precise_device
from nfpi.priors.statistics import ClassStatistics
from nfpi.priors.gaussian import GaussianPrior
from nfpi.priors.gradient_descent import ValueRange
from nfpi.runtime.processes import ALONE, Processes
from nfpi.runtime.randomness import derive_seed, generator_for

# epochs of the stream that training never reaches, so that their order and augmentations are their own
INITIALIZATION_EPOCH, STATISTICS_EPOCH = 2**31, 2**31 + 1


@dataclass(frozen=True)
class TrainingData:
    """The images of a training, and how they reach the flow.

    Attributes:
        train, validation: image sets.
        config: batch size, augmentation, noise.
        device: where batches go.
        processes: those that share every batch.

    Raises:
        ValueError: a batch has fewer images than there are processes.
    """

    train: ImageSet
    validation: ImageSet
    config: TrainingConfig
    device: torch.device
    processes: Processes = ALONE

    def __post_init__(self) -> None:
        smallest = self.images_of_batch(self.steps_per_epoch - 1)
        if smallest < self.processes.count:
            raise ValueError(
                f"batch_size: expected batches of {self.processes.count} images at least, one for each device, "
                f"received {smallest} in the last of an epoch of {len(self.train)}: try another batch_size"
            )

    @cached_property
    def domain(self) -> Domain:
        """Pixels or latents, and their noise."""
        config = self.config
        return domain_of(self.train.meta, grey_noise=config.grey_noise, latent_noise=config.latent_noise)

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch; the last one may be smaller."""
        return num_batches(len(self.train), self.config.batch_size)

    def images_of_batch(self, batch: int) -> int:
        """Images of a batch of an epoch, over all processes together."""
        return min(self.config.batch_size, len(self.train) - batch * self.config.batch_size)

    def stream(self, seed: int, epoch: int, start_batch: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches (x, labels) of an epoch, augmented and with their domain's noise: x (B, C, H, W), labels (B,).

        Of each batch, this is the share of one process. All draw the noise of the whole batch, so that images get the
        same however many share them.
        """
        config, processes = self.config, self.processes
        flip = self.train.meta["extra"]["flip"]
        stream = batches(
            self.train,
            config.batch_size,
            seed=derive_seed(seed, "order"),
            epoch=epoch,
            shuffle=True,
            transform=training_transform(config.augmentation, self.train.shape, flip),
            start_batch=start_batch,
            workers=-(-config.workers // processes.count),
            pin_memory=self.device.type == "cuda",
            rank=processes.rank,
            world_size=processes.count,
        )
        for index, (images, labels) in enumerate(stream, start_batch):
            generator = generator_for(self.device, seed, "dequantize", epoch, index)
            whole = torch.zeros(self.images_of_batch(index), *images.shape[1:], dtype=images.dtype, device=self.device)
            share = processes.share(len(whole))
            whole[share] = images.to(self.device, non_blocking=True)
            yield self.domain.to_flow(whole, generator)[share], labels.to(self.device, non_blocking=True)


def first_images(data: TrainingData, seed: int) -> Tensor:
    """Images of the data-dependent initialisation, (B, C, H, W); every process has them all."""
    taken: list[Tensor] = []
    for x, _ in replace(data, processes=ALONE).stream(seed, INITIALIZATION_EPOCH):
        taken.append(x)
        if sum(map(len, taken)) >= data.config.initialization_images:
            break
    return torch.cat(taken)[: data.config.initialization_images]


@torch.no_grad()
def latent_statistics(
    flow: MatrixExponentialFlow,
    data: TrainingData,
    seed: int,
    prior: GaussianPrior | None = None,
    nll_range: ValueRange | None = None,
) -> ClassStatistics:
    """Statistics of the latents of all training images, augmented and dequantised, in one pass of all processes.

    Args:
        flow: whose latents they are.
        data: images and knobs.
        seed: of the run; the order, augmentations and noise are the same at every call.
        prior, nll_range: with both, the range takes in −log p(x | y) of every image under the prior, as bits/dim count
            it, but in nats.
    """
    dimensions = torch.Size(data.train.shape).numel()
    statistics = ClassStatistics.empty(data.train.num_classes, dimensions, device=precise_device(data.device))
    for x, labels in data.stream(seed, STATISTICS_EPOCH):
        z, log_abs_det = flow(x)
        statistics.update(z, labels)
        if prior is not None and nll_range is not None:
            nll = -prior.log_prob_of(z, labels) - log_abs_det
            nll_range.update(data.domain.bits_per_dim(nll, dimensions) * (dimensions * math.log(2)))
    if nll_range is not None and nll_range.ends is not None:
        nll_range.update(torch.stack(data.processes.gathered(nll_range.ends)))
    return data.processes.merged(statistics)
