"""The subject of the checks: the work of a preset on a device, and its data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from nfpi.checks.batches import Measured, measure_batch
from nfpi.checks.work import Images, Work, count_images, describe_batch, list_work
from nfpi.config.base import ConfigError
from nfpi.config.resolution import Resolved
from nfpi.data.store import ImageSet, read_image_set
from nfpi.runs import SPLITS, Layout

_BATCH_ON_CPU, _SHORT_STEP, _SHORT_PASS = 4, 0.5, 0.1
"""On a CPU, this batch is measured first, and larger ones as long as a step, or pass, takes less than these seconds."""
_PREDICTION_SHARE = 1 / 3
"""ratio of the time of a classifier's prediction to the time of a training step on the same images"""


@dataclass
class Subject:
    """The work of a preset on a device.

    Attributes:
        resolved: settings of the preset.
        device: device that the checks run on.
        work: batches that the runs of the preset compute there.
        prepared: training images of the data sets that are prepared.
        counted: the data sets whose number of images is known.
        measured: what was found of each kind of batch so far, see :func:`nfpi.checks.work.describe_batch`.
    """

    resolved: Resolved
    device: torch.device
    work: list[Work]
    prepared: dict[str, ImageSet]
    counted: set[str]
    measured: dict[tuple[object, ...], Measured] = field(default_factory=dict)

    @classmethod
    def find(cls, resolved: Resolved, device: torch.device) -> Subject:
        """Return the work of a preset.

        Raises:
            ConfigError: the preset trains no flow.
        """
        found = {name: _find_images(resolved, name) for name in resolved.config.datasets}
        prepared = {name: images for name, (images, _) in found.items() if images is not None}
        counted = {name: sizes for name, (_, sizes) in found.items() if sizes is not None}
        work = list_work(resolved.config, counted)
        if not any(one.kind == "flow_step" for one in work):
            raise ConfigError(f"preset {resolved.preset}: expected tables with a flow, received none")
        return cls(resolved, device, work, prepared, set(counted))

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a CUDA GPU."""
        return self.device.type == "cuda"

    @property
    def card_memory(self) -> float:
        """Memory of the GPU in GiB."""
        return torch.cuda.get_device_properties(self.device).total_memory / 2**30

    @property
    def about(self) -> str:
        """Qualifier of times: on a CPU, those of large batches are projected."""
        return "" if self.on_gpu else "about "

    def list_distinct(self, *kinds: str) -> Iterator[Work]:
        """Yield one item of work for each kind of batch; training steps of any model if no kinds are given."""
        distinct: dict[tuple[object, ...], Work] = {}
        for work in self.work:
            if work.kind in kinds or (not kinds and work.is_step):
                distinct.setdefault(describe_batch(self.resolved.config, work), work)
        yield from distinct.values()

    @property
    def main(self) -> Work:
        """Training steps of the first flow."""
        return next(self.list_distinct("flow_step"))

    def limit_batch(self, work: Work) -> Work:
        """Return the work, on a CPU with a small batch."""
        if self.on_gpu:
            return work
        accumulate = 1
        if work.kind.startswith("classifier"):
            accumulate = self.resolved.config.for_dataset(work.dataset).classifiers[work.subject].accumulate
        return replace(work, batch=min(work.batch, max(_BATCH_ON_CPU, accumulate)))

    def measure(self, work: Work) -> Measured:
        """Measure a batch; on a CPU, where it may take long, its time is projected from that of a smaller one."""
        small, short = self.limit_batch(work), _SHORT_STEP if work.is_step else _SHORT_PASS
        found = self._measure_once(small)
        while small.batch < work.batch and found.seconds < short:
            small = replace(small, batch=min(work.batch, 4 * small.batch))
            found = self._measure_once(small)
        return replace(found, seconds=found.seconds * work.batch / small.batch)

    def _measure_once(self, work: Work) -> Measured:
        key = describe_batch(self.resolved.config, work)
        if key not in self.measured:
            self.measured[key] = measure_batch(self.resolved.config, work, self.device)
        return self.measured[key]

    def estimate_seconds(self, work: Work) -> float | None:
        """Return the seconds of all batches; None: the time or the number of images is not known."""
        if work.dataset not in self.counted:
            return None
        share = 1.0
        if work.kind == "classifier_forward":
            work, share = replace(work, kind="classifier_step"), _PREDICTION_SHARE
        found = self.measure(work)
        return None if found.fault else share * work.batches * found.seconds


def _find_images(resolved: Resolved, dataset: str) -> tuple[ImageSet | None, Images | None]:
    """Return the prepared training images of a data set, if there are any, and its sizes, if they are known."""
    block = resolved.config.datasets[dataset]
    splits = resolved.config.splits_of(dataset, resolved.config.seeds[0])
    folder = Path(Layout(resolved.results / resolved.preset).path(SPLITS, dataset=dataset, splits=splits))
    splits_there = [split for split in ("train", "validation", "test") if (folder / split).is_dir()]
    found = {split: read_image_set(folder / split, verify=False) for split in splits_there}
    train = found.get("train")
    if train is None:
        return None, count_images(resolved.config, dataset)
    counts = {split: len(images) for split, images in found.items()}
    declared = Images.of(block)
    pixels = train.shape if block.vae is None else declared.pixels
    return train, replace(declared, **counts, classes=train.num_classes, shape=train.shape, pixels=pixels)
