"""The subject of the checks: a preset on a device, and a trainer that makes single steps."""

from __future__ import annotations

import copy
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import median

import torch
from torch import Tensor

from nfpi.benchmark.measurement import synchronize
from nfpi.checks.workloads import Workload
from nfpi.config import Config, TrainingConfig
from nfpi.data.store import ImageSet
from nfpi.flows.image_flow import ImageFlow
from nfpi.flows.registry import build_flow
from nfpi.linalg import precise_device
from nfpi.priors.gaussian import GaussianPrior
from nfpi.runtime.device import Device
from nfpi.runtime.devices import make_device
from nfpi.runtime.randomness import derive_seed, make_generator
from nfpi.training.batches import TrainingData, draw_initialization_images
from nfpi.training.epoch_prior import FixedPrior
from nfpi.training.state import TrainingState
from nfpi.training.step import TrainingStep

SEED = 0
LARGEST_BATCH_ON_CPU = 16
"""largest batch size on a CPU, unless steps of the whole batch are short"""
SHORT_STEP = 2.0
"""seconds; on a CPU, a step of the whole batch is timed only if it is shorter, as estimated from a smaller batch"""
_INITIALIZATION_IMAGES = 64
_REPEATS, _LONG_WARM_UP = 3, 1.5
"""number of timed runs after a warm-up run, and the seconds of a warm-up run above which only one follows"""


@dataclass
class Subject:
    """A preset on a device.

    Attributes:
        preset: name of the preset.
        config: settings of the preset.
        workloads: flows that the preset trains; most checks use only the first one.
        device: device that the checks run on.
        seconds: time of a training step of each workload at its full batch size; on a CPU it may be a projection.
        per_image: seconds per image of other computations; the key is their kind
            (:attr:`nfpi.benchmark.work.Work.kind`), the name of the flow or the classifier, and the data set.
        dataset: the only data set whose classifiers are checked; None: all.
    """

    preset: str
    config: Config
    workloads: list[Workload]
    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)
    per_image: dict[tuple[str, str, str], float] = field(default_factory=dict)
    dataset: str | None = None

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a CUDA GPU."""
        return self.device.type == "cuda"

    @property
    def main(self) -> Workload:
        """The first workload."""
        return self.workloads[0]

    @property
    def distinct(self) -> list[Workload]:
        """First workload of each combination of flow and training; the others of a combination have the same steps."""
        found: dict[str, Workload] = {}
        for workload in self.workloads:
            found.setdefault(workload.step, workload)
        return list(found.values())

    def record_seconds(self, workload: Workload, seconds: float) -> None:
        """Record the seconds per step of a workload, and of all other workloads with the same steps."""
        self.seconds |= {other.name: seconds for other in self.workloads if other.step == workload.step}

    def limit_batch_size(self, size: int) -> int:
        """Return a batch size, reduced to at most :data:`LARGEST_BATCH_ON_CPU` unless the device is a CUDA GPU."""
        return size if self.on_gpu else min(size, LARGEST_BATCH_ON_CPU)

    @cached_property
    def trained(self) -> Trainer:
        """Trainer of the main flow at a batch of at most 64 images, for checks that make many steps."""
        return Trainer.new(self.main, min(64, self.limit_batch_size(self.main.training.batch_size)))

    def discard_trained(self) -> None:
        """Discard :attr:`trained`, so that its memory can be released; the next use creates a new trainer."""
        vars(self).pop("trained", None)


@dataclass(eq=False)
class Trainer:
    """Trainer that makes single steps of a training (:class:`nfpi.training.step.TrainingStep`).

    Attributes:
        workload: the workload whose flow is trained.
        config: settings of the training, with the batch size of the check.
        device: device and precision.
        state: state of the training.
        prior: Gaussians around random means.
        compiler: backend of :func:`torch.compile`; None: not compiled.
    """

    workload: Workload
    config: TrainingConfig
    device: Device
    state: TrainingState
    prior: GaussianPrior
    compiler: str | None = None

    @classmethod
    def new(
        cls,
        workload: Workload,
        batch: int,
        precision: str | None = None,
        flow: ImageFlow | None = None,
        compiler: str | None = None,
    ) -> Trainer:
        """Create a trainer; without `flow`, initialise a new one on images of the workload.

        Args:
            workload: the flow and its images.
            batch: number of images in a step.
            precision: precision of the steps; None: the workload's.
            flow: initialised flow, of which a copy is trained; None: a new one is initialised.
            compiler: backend of :func:`torch.compile`; None: not compiled.
        """
        changes = {"batch_size": batch, "workers": 0, "precision": precision or workload.training.precision}
        config = workload.training.model_copy(update=changes | {"compile": False})
        device = make_device(config.precision)
        torch.manual_seed(derive_seed(SEED, "weights"))
        if flow is None:
            flow = build_flow(workload.description).to(device.device)
            images = select_first_images(workload.images, max(batch, _INITIALIZATION_IMAGES))
            data = TrainingData(images, None, config, device.device)
            with closing(data), torch.no_grad():
                flow.initialize(draw_initialization_images(data, SEED))
        else:
            flow = copy.deepcopy(flow)
        state = TrainingState.new(flow, config, SEED, steps_per_epoch=1)
        return cls(workload, config, device, state, _make_random_prior(workload, device.device), compiler)

    def make_data(self, count: int, workers: int = 0) -> TrainingData:
        """Return training data of `count` batches per epoch, made by `workers` processes."""
        images = select_first_images(self.workload.images, count * self.config.batch_size)
        config = self.config.model_copy(update={"workers": workers, "epochs": 1, "fit_after_epochs": 0})
        return TrainingData(images, None, config, self.device.device)

    def make_batch(self, size: int | None = None) -> tuple[Tensor, Tensor]:
        """Return a batch on the device: x (B, C, H, W) with its noise, and labels (B,)."""
        images = select_first_images(self.workload.images, size or self.config.batch_size)
        pixels = torch.from_numpy(images.images[:].copy()).permute(0, 3, 1, 2).contiguous().to(self.device.device)
        domain = self.make_data(1).domain
        x = domain.to_flow(pixels, make_generator(self.device.device, SEED, "check"))
        return x, torch.from_numpy(images.labels[:].copy()).to(self.device.device)

    @cached_property
    def _set_up(self) -> tuple[TrainingStep, FixedPrior]:
        steps = self.config.warmup_steps + 10_000
        step = TrainingStep(self.state, self.config, self.device, steps, self.config.batch_size, self.compiler)
        step.choose_bounds(epoch_begins=True)
        return step, FixedPrior(self.prior, self.device.device)

    def discard_step(self) -> None:
        """Discard the cached training step; to be called after other code has trained the flow."""
        vars(self).pop("_set_up", None)

    def step(self, x: Tensor, labels: Tensor) -> Tensor:
        """Make one training step; return the mean loss before the update, ()."""
        step, prior = self._set_up
        return step(prior, x, labels).mean()


def select_first_images(images: ImageSet, count: int) -> ImageSet:
    """Return the first `count` images, repeated if there are fewer."""
    rows = torch.arange(count).numpy() % len(images)
    return replace(images, images=images.images[rows], labels=images.labels[rows])


def release_memory() -> None:
    """Release unused memory, and reset CUDA's peak memory."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def time_action(action: Callable[[], object], device: torch.device) -> float:
    """Measure the median time of an action after a warm-up, or a single time if the warm-up was long."""
    times: list[float] = []
    while len(times) < (2 if times and times[0] > _LONG_WARM_UP else 1 + _REPEATS):
        synchronize(device)
        began = time.perf_counter()
        action()
        synchronize(device)
        times.append(time.perf_counter() - began)
    return median(times[1:])


@contextmanager
def in_mode(module: torch.nn.Module, training: bool) -> Iterator[None]:
    """Put a module into training or evaluation mode within the block."""
    before = module.training
    module.train(training)
    try:
        yield
    finally:
        module.train(before)


def _make_random_prior(workload: Workload, device: torch.device) -> GaussianPrior:
    shape = (workload.images.num_classes, torch.Size(workload.images.shape).numel())
    mean = torch.randn(shape, generator=torch.Generator().manual_seed(SEED))
    return GaussianPrior(mean, torch.ones(shape)).to(precise_device(device))
