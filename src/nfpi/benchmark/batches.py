"""Count the operations of a preset's batches on fake tensors, and estimate the time of its runs on a GPU."""

from __future__ import annotations

import logging
import multiprocessing
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from nfpi.benchmark.cards import Card
from nfpi.benchmark.computations import Step, count_classifier_step, count_flow_step, count_forward
from nfpi.benchmark.counting import Counts
from nfpi.benchmark.work import Work
from nfpi.classifiers.registry import build_classifier
from nfpi.classifiers.training import make_optimizer
from nfpi.config import FLOWS, Config
from nfpi.flows.image_flow import ImageFlow
from nfpi.flows.registry import build_flow

logger = logging.getLogger(__name__)

COUNTED_PRECISIONS = ("32-true", "bf16-mixed")
"""Precisions whose counts differ; TF32 has the counts of float32."""

STABLE_DIFFUSION: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
"""Architecture of stabilityai/sd-vae-ft-mse."""


@dataclass
class Projection:
    """Operations of one batch of each kind in a preset's runs, and the time of all batches on a GPU.

    Args:
        config: settings of the preset.
        work: what its runs compute, as numbers of equal batches.
    """

    config: Config
    work: Sequence[Work]
    _passes: dict[object, Counts] = field(default_factory=dict)
    _steps: dict[object, Step] = field(default_factory=dict)

    def count_in_parallel(self, jobs: int) -> None:
        """Count one batch of each kind in parallel, in `jobs` processes (not on Windows).

        Without this call, a batch is counted when its counts are first needed.
        """
        wanted: dict[object, tuple[Work, str]] = {}
        for work in self.work:
            for precision in COUNTED_PRECISIONS if work.kind.endswith("_step") else ("",):
                wanted.setdefault((*self.make_key(work), precision), (work, precision))
        tasks = sorted(wanted.values(), key=lambda task: not task[0].kind.startswith("flow"))  # the longest first
        # forked, because settings whose class a registry creates cannot be pickled
        forked = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(jobs, forked, initializer=_adopt, initargs=(self,)) as pool:
            counted = pool.map(_count, *zip(*tasks, strict=True))
            for (work, precision), result in zip(tasks, counted, strict=True):
                if isinstance(result, Step):
                    self._steps[(*self.make_key(work), precision)] = result
                else:
                    self._passes[self.make_key(work)] = result

    def estimate_seconds(self, work: Work, card: Card, precision: str) -> float:
        """Estimate the seconds of all batches on a GPU; training steps run in `precision`, all else in float32."""
        if work.kind.endswith("_step"):
            return work.batches * card.estimate_seconds(self.get_step(work, precision).counts, precision)
        return work.batches * card.estimate_seconds(self.get_passes(work))

    def estimate_hours(self, card: Card, precision: str) -> dict[str, float]:
        """Estimate the hours of all work by stage; training stages are split by model."""
        hours: defaultdict[str, float] = defaultdict(float)
        for work in self.work:
            hours[format_stage_name(work)] += self.estimate_seconds(work, card, precision) / 3600
        return dict(hours)

    def make_key(self, work: Work) -> tuple[object, ...]:
        """Return a key of everything that a batch's counts depend on, with the number of classes only for classifiers.

        Batches of several data sets have the same key unless one overrides settings of the model or its training.
        """
        classes = work.classes if work.kind.startswith("classifier") else 0
        return work.kind, work.subject, work.shape, classes, work.batch, self.get_overriding_dataset(work)

    def get_overriding_dataset(self, work: Work) -> str:
        """Return the data set of a batch if it overrides settings that its counts depend on, otherwise empty."""
        if work.kind.startswith("vae"):
            return ""
        common, own = self.config, self.config.for_dataset(work.dataset)
        if work.kind.startswith("classifier"):
            blocks = [config.classifiers[work.subject].model_dump(exclude={"epochs"}) for config in (common, own)]
        else:
            blocks = [config.flows[work.subject].model_dump(exclude={"training"}) for config in (common, own)]
            optimizer = common.resolve_training(work.dataset, work.subject).optimizer
            if optimizer != common.flows[work.subject].training.get("optimizer", common.training.optimizer):
                return work.dataset
        return "" if blocks[0] == blocks[1] else work.dataset

    def get_step(self, work: Work, precision: str) -> Step:
        """Return the counts of a training step, which are computed once."""
        counted = "bf16-mixed" if precision == "bf16-mixed" else "32-true"
        key = (*self.make_key(work), counted)
        if key not in self._steps:
            logger.info("counting a step of %s, %s", work.subject, counted)
            self._steps[key] = self._count_step(work, counted)
        return self._steps[key]

    def count_one(self, work: Work, precision: str) -> Step | Counts:
        """Count a training step in a precision, or a batch without gradients if the precision is empty."""
        return self._count_step(work, precision) if precision else self._count_passes(work)

    def _count_step(self, work: Work, precision: str) -> Step:
        if work.kind == "flow_step":
            training = self.config.resolve_training(work.dataset, work.subject)
            return count_flow_step(self._build_flow(work), work.batch, precision, training)
        settings = self.config.for_dataset(work.dataset).classifiers[work.subject]
        shape = (work.batch, *work.shape)
        return count_classifier_step(
            lambda: self._build_classifier(work), shape, precision, lambda model: make_optimizer(model, settings)
        )

    def get_passes(self, work: Work) -> Counts:
        """Return the counts of a batch without gradients, which are computed once."""
        key = self.make_key(work)
        if key not in self._passes:
            logger.info("counting %s of %s", work.kind, work.subject)
            self._passes[key] = self._count_passes(work)
        return self._passes[key]

    def _count_passes(self, work: Work) -> Counts:
        shape = (work.batch, *work.shape)
        if work.kind.startswith("vae"):
            return count_forward(build_autoencoder(), shape, _VAE_CALLS[work.kind])
        if work.kind == "classifier_forward":
            return count_forward(self._build_classifier(work), shape)
        return count_forward(self._build_flow(work), shape, _invert if work.kind == "flow_inverse" else None)

    def _build_flow(self, work: Work) -> ImageFlow:
        block = self.config.for_dataset(work.dataset).flows[work.subject]
        settings = FLOWS.extract_settings(block).model_dump(mode="json")
        return build_flow({"kind": block.kind, "shape": list(work.shape), "settings": settings})

    def _build_classifier(self, work: Work) -> nn.Module:
        settings = self.config.for_dataset(work.dataset).classifiers[work.subject]
        untrained = settings.model_copy(update={"pretrained": False, "weights": None})
        channels, size, _ = work.shape
        return build_classifier(untrained, work.classes, channels, size)


_adopted: list[Projection] = []
"""The projection whose batches this worker process counts."""


def _adopt(projection: Projection) -> None:
    _adopted.append(projection)


def _count(work: Work, precision: str) -> Step | Counts:
    return _adopted[-1].count_one(work, precision)


def format_stage_name(work: Work) -> str:
    """Return the name of a stage in the table of hours."""
    if work.kind.startswith("vae"):
        return f"{work.stage}: autoencoder"
    return f"{work.stage}: {work.subject}" if work.stage in ("train_flow", "train_classifier") else work.stage


def build_autoencoder() -> nn.Module:
    """Build Stable Diffusion's autoencoder with random weights.

    Raises:
        ImportError: diffusers is not installed.
    """
    from diffusers import AutoencoderKL

    made: nn.Module = AutoencoderKL(**STABLE_DIFFUSION)
    return made


_VAE_CALLS: dict[str, Callable[[Any, Tensor], object]] = {
    "vae_encode": lambda vae, x: vae.encode(x),
    "vae_decode": lambda vae, z: vae.decode(z),
}


def _invert(flow: nn.Module, z: Tensor) -> object:
    assert isinstance(flow, ImageFlow)
    return flow.inverse(z)
