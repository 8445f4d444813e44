"""Estimate the time of a preset's batches on GPUs from their operations, by a roofline model."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from nfpi.classifiers.registry import build_classifier
from nfpi.config.settings import Config
from nfpi.flows.bijection import ImageFlow
from nfpi.flows.registry import build_flow, describe_flow
from nfpi.projection.counting import Operation, Step, count_classifier_step, count_flow_step, count_pass
from nfpi.projection.work import LATENT_CHANNELS, Work, describe_batch
from nfpi.training.optimizers import make_optimizer

logger = logging.getLogger(__name__)

PEAK_FRACTION = 0.5
"""Fraction of its peak that a card reaches in float32 and float64 products and convolutions."""
TENSOR_CORE_FRACTION = 0.35
"""Fraction of its peak that a card reaches in bfloat16; low, as the networks are narrow (128 channels)."""
BANDWIDTH_FRACTION = 0.75
"""Fraction of a card's memory bandwidth that element-wise operations and reductions reach."""
MEMORY_FRACTION = 0.85
"""Fraction of a card's memory that a step may use; the rest is for CUDA's context, temporary results, fragmentation."""


@dataclass(frozen=True)
class Card:
    """One GPU, with the launch time of its host.

    Attributes:
        name: name of the card.
        memory: memory in GiB.
        bandwidth: memory bandwidth in bytes per second, by the vendor's data sheet.
        peaks: operations per second in each arithmetic that it supports (`float64`, `float32`, `bfloat16`).
        launch: seconds that the host needs to launch an operation, autograd included.
    """

    name: str
    memory: float
    bandwidth: float
    peaks: Mapping[str, float]
    launch: float

    @property
    def precisions(self) -> list[str]:
        """Training precisions that the card supports."""
        return [name for name, arithmetic in PRECISIONS.items() if arithmetic in self.peaks]

    def estimate_seconds(self, operations: Sequence[Operation]) -> float:
        """Estimate the seconds that operations take, by a roofline model.

        Each operation takes as long as its arithmetic or its memory traffic, whichever is longer. The result is the sum
        over the operations, or the time that the host needs to launch them if that is longer.
        """
        bandwidth = self.bandwidth * BANDWIDTH_FRACTION
        busy = sum(max(op.flops / self._estimate_rate(op.dtype), op.bytes / bandwidth) for op in operations)
        return max(busy, len(operations) * self.launch)

    def _estimate_rate(self, dtype: torch.dtype) -> float:
        share = TENSOR_CORE_FRACTION if dtype is torch.bfloat16 else PEAK_FRACTION
        return self.peaks[str(dtype).removeprefix("torch.")] * share


PRECISIONS = {"32-true": "float32", "bf16-mixed": "bfloat16"}
"""Precisions of training steps, with the arithmetic that each of them needs."""

CARDS = (
    Card("V100 32 GB", 32, 0.9e12, {"float64": 7.8e12, "float32": 15.7e12}, 8e-6),
    Card("A100 80 GB", 80, 2.04e12, {"float64": 9.7e12, "float32": 19.5e12, "bfloat16": 312e12}, 7e-6),
    Card("H100 80 GB", 80, 3.35e12, {"float64": 34e12, "float32": 67e12, "bfloat16": 989e12}, 6e-6),
)
"""SXM modules, by the vendor's data sheets, without sparsity; the launch times are assumptions for eager PyTorch."""

_STABLE_DIFFUSION: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": LATENT_CHANNELS,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
"""Architecture of stabilityai/sd-vae-ft-mse."""


def build_model(config: Config, work: Work) -> nn.Module:
    """Build the model of a batch with random weights: a flow, a classifier, or Stable Diffusion's autoencoder.

    Raises:
        ImportError: diffusers is not installed.
    """
    if work.kind.startswith("vae"):
        from diffusers import AutoencoderKL

        autoencoder: nn.Module = AutoencoderKL(**_STABLE_DIFFUSION)
        return autoencoder
    own = config.for_dataset(work.dataset)
    if work.kind.startswith("flow"):
        return build_flow(describe_flow(own.flows[work.subject], work.shape))
    untrained = own.classifiers[work.subject].model_copy(update={"pretrained": False, "weights": None})
    channels, size, _ = work.shape
    return build_classifier(untrained, work.classes, channels, size)


@dataclass
class Projection:
    """Operations of one batch of each kind in a preset's runs, and the time of all batches on a GPU.

    Args:
        config: settings of the preset.
        work: what its runs compute, as numbers of equal batches.
    """

    config: Config
    work: Sequence[Work]
    _counted: dict[object, Step] = field(default_factory=dict)

    def estimate_hours(self, card: Card, precision: str) -> dict[str, float]:
        """Estimate the hours of all work by its label; training steps run in `precision`, all else in float32."""
        hours: defaultdict[str, float] = defaultdict(float)
        for work in self.work:
            used = precision if work.is_step else "32-true"
            seconds = work.batches * card.estimate_seconds(self.count(work, used).operations)
            hours[work.label] += seconds / 3600
        return dict(hours)

    def count(self, work: Work, precision: str) -> Step:
        """Return the counts of a batch, which are computed once."""
        key = (describe_batch(self.config, work), precision)
        if key not in self._counted:
            logger.info("counting %s of %s, %s", work.kind, work.subject or "the autoencoder", precision)
            self._counted[key] = self._count(work, precision)
        return self._counted[key]

    def _count(self, work: Work, precision: str) -> Step:
        shape = (work.batch, *work.shape)
        if work.kind == "classifier_step":
            settings = self.config.for_dataset(work.dataset).classifiers[work.subject]
            build, make = partial(build_model, self.config, work), partial(make_optimizer, config=settings)
            return count_classifier_step(build, shape, precision, make)
        model = build_model(self.config, work)
        if work.kind == "flow_step":
            assert isinstance(model, ImageFlow)
            training = self.config.resolve_training(work.dataset, work.subject)
            return count_flow_step(model, work.batch, precision, training)
        return count_pass(model, shape, method=work.kind.partition("_")[2])
