"""Training images: batches for the flow, and statistics of their latents."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property, reduce

import torch
from torch import Tensor

from nfpi.config.flows import TrainingConfig
from nfpi.data.batches import BatchLoader, ImageBatches, Transform, num_batches
from nfpi.data.domain import Domain, choose_domain
from nfpi.data.store import ImageSet
from nfpi.flows.bijection import ImageFlow
from nfpi.linalg import precise_device
from nfpi.priors.gaussian import GaussianPrior
from nfpi.priors.learner import ValueRange
from nfpi.priors.statistics import ClassStatistics
from nfpi.runtime.precision import full_precision
from nfpi.runtime.processes import ALONE, Processes
from nfpi.runtime.randomness import derive_seed, make_generator

# epoch numbers that no training reaches, so that orders and augmentations differ from those of all epochs
INITIALIZATION_EPOCH, STATISTICS_EPOCH = 2**31, 2**31 + 1


@dataclass(frozen=True)
class TrainingData:
    """Training and validation images, as batches for the flow.

    Attributes:
        train, validation: image sets; without validation images nothing is evaluated.
        config: batch size, augmentation, noise.
        device: device of the batches.
        processes: group of processes that share every batch.

    Raises:
        ValueError: a batch has fewer images than there are processes.
    """

    train: ImageSet
    validation: ImageSet | None
    config: TrainingConfig
    device: torch.device
    processes: Processes = ALONE

    def __post_init__(self) -> None:
        smallest = self.count_images(self.steps_per_epoch - 1)
        if smallest < self.processes.count:
            raise ValueError(
                f"batch_size: expected batches of {self.processes.count} images at least, one for each device, "
                f"received {smallest} in the last batch of an epoch of {len(self.train)} images: try another batch_size"
            )

    @cached_property
    def domain(self) -> Domain:
        """Domain of the images: pixels or latents, with their noise."""
        config = self.config
        return choose_domain(self.train.meta, grey_noise=config.grey_noise, latent_noise=config.latent_noise)

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches of an epoch; the last one may be smaller."""
        return num_batches(len(self.train), self.config.batch_size)

    def count_images(self, batch: int) -> int:
        """Count the images of a batch of an epoch, over all processes."""
        return min(self.config.batch_size, len(self.train) - batch * self.config.batch_size)

    def close(self) -> None:
        """End the worker processes, which live across epochs; a further epoch starts new ones."""
        self._loader.close()

    def stream(self, seed: int, epoch: int, start_batch: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over the batches of an epoch, augmented and with the noise of their domain.

        Every process gets its part of each batch. All draw the noise of the whole batch, so that the noise does not
        depend on the number of processes.

        Args:
            seed: seed of the run.
            epoch: counted from 0.
            start_batch: number of batches to skip.

        Yields:
            x (B, C, H, W) and labels (B,).
        """
        processes = self.processes
        batches = self._loader.load_epoch(epoch, seed=derive_seed(seed, "order"), start_batch=start_batch)
        for index, (images, labels) in enumerate(batches, start_batch):
            generator = make_generator(self.device, seed, "dequantize", epoch, index)
            whole = torch.zeros(self.count_images(index), *images.shape[1:], dtype=images.dtype, device=self.device)
            share = processes.get_slice(len(whole))
            whole[share] = images.to(self.device, non_blocking=True)
            yield self.domain.to_flow(whole, generator)[share], labels.to(self.device, non_blocking=True)

    @cached_property
    def _loader(self) -> BatchLoader:
        return BatchLoader(
            ImageBatches(self.train, self._make_transform()),
            self.config.batch_size,
            shuffle=True,
            workers=-(-self.config.workers // self.processes.count),
            pin_memory=self.device.type == "cuda",
            rank=self.processes.rank,
            world_size=self.processes.count,
        )

    def _make_transform(self) -> Transform | None:
        if self.config.augmentation == "none":
            return None
        from nfpi.data.transforms import training_transform  # torchvision takes as long to import as torch

        return training_transform(self.config.augmentation, self.train.shape, self.train.flip)


def draw_initialization_images(data: TrainingData, seed: int) -> Tensor:
    """Draw the images of the data-dependent initialisation, (B, C, H, W), the same in every process.

    Args:
        data: training images; the setting `initialization_images` says how many are drawn; all if there are fewer.
        seed: seed of the run.
    """
    count = data.config.initialization_images
    drawn: list[Tensor] = []
    with closing(replace(data, processes=ALONE)) as alone:
        for x, _ in alone.stream(seed, INITIALIZATION_EPOCH):
            drawn.append(x)
            if sum(map(len, drawn)) >= count:
                break
    return torch.cat(drawn)[:count]


@torch.no_grad()
@full_precision()
def latent_statistics(
    flow: ImageFlow,
    data: TrainingData,
    seed: int,
    prior: GaussianPrior | None = None,
    nll_range: ValueRange | None = None,
) -> ClassStatistics:
    """Compute statistics of the latents of all training images, augmented and dequantised, in one pass.

    Args:
        flow: f, which maps images x to latents z = f(x).
        data: training images; all its processes take part.
        seed: seed of the run; order, augmentations and noise are the same in every call.
        prior, nll_range: if both are given, the range is updated with −log p(x | y) of every image under the prior, in
            nats; as for bits/dim, p is the density of pixel values in [0, 256), or of latents before scaling.
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
        nll_range.update(torch.stack(data.processes.gather(nll_range.ends)))
    return _merge(statistics, data.processes)


def _merge(statistics: ClassStatistics, processes: Processes) -> ClassStatistics:
    """Merge the statistics of all processes."""
    if processes.count == 1:
        return statistics
    columns = (statistics.count, statistics.mean, statistics.variance)
    parts = [ClassStatistics(*part) for part in zip(*map(processes.gather, columns), strict=True)]
    return reduce(ClassStatistics.merge, parts)
