"""Training steps of a preset on a device, on random images: how long they take, and how much memory they need."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.benchmark.utils.timer import Timer, timer

from nfpi.checks.work import Images, Work, list_work
from nfpi.config.base import ConfigError
from nfpi.config.resolution import Resolved
from nfpi.config.settings import Config
from nfpi.data.store import ImageSet, read_image_set
from nfpi.flows.registry import build_flow, describe_flow
from nfpi.linalg import precise_device
from nfpi.priors.gaussian import GaussianPrior
from nfpi.results.tables.rows import list_tabled_runs
from nfpi.runs import SPLITS
from nfpi.runtime.device import make_device
from nfpi.runtime.faults import describe_exhausted_memory, format_error
from nfpi.training.batches import TrainingData
from nfpi.training.flow_training import FlowTraining
from nfpi.training.loop import Training
from nfpi.training.state import TrainingState

SEED = 0
_SECONDS = 0.5
"""shortest time over which a batch is timed"""
_EPOCHS = 10_000
"""epochs of a trial, each of one step: more than are made"""
_BATCH_ON_CPU, _SHORT_STEP = 4, 0.5
"""On a CPU, this batch is measured first, and larger ones as long as a step takes less than these seconds."""


@dataclass(frozen=True)
class Trial:
    """A training that makes steps on one random batch.

    Attributes:
        training: the training.
        x, labels: the batch, (B, C, H, W) and (B,).
    """

    training: Training
    x: Tensor
    labels: Tensor

    def step(self) -> Tensor:
        """Make one training step; return the mean loss before the update, ()."""
        state = self.training.state
        state.epoch_loss.zero_()
        self.training.step(self.x, self.labels)
        return state.epoch_loss / len(self.x)


def make_flow_trial(config: Config, work: Work) -> Trial:
    """Make a trial of a flow initialised on the batch, under Gaussians around random means."""
    training = config.resolve_training(work.dataset, work.subject)
    changes = {"batch_size": work.batch, "compile": False, "epochs": training.warmup_steps + _EPOCHS}
    training = training.model_copy(update=changes)
    chosen = make_device(training.precision)
    device = chosen.device
    torch.manual_seed(SEED)
    x = (2 * torch.rand(work.batch, *work.shape) - 1).to(device)
    labels = (torch.arange(work.batch) % work.classes).to(device)
    mean = torch.randn(work.classes, x[0].numel())
    prior = GaussianPrior(mean, torch.ones_like(mean)).to(precise_device(device))
    flow = build_flow(describe_flow(config.for_dataset(work.dataset).flows[work.subject], work.shape)).to(device)
    with torch.no_grad():
        flow.initialize(x)
    state = TrainingState.new(flow, training, SEED, steps_per_epoch=1)
    data = TrainingData(make_random_images(work), None, training, device)
    steps = FlowTraining(state, prior, data, chosen, training.epochs)
    steps.choose_bounds(epoch_begins=True)
    return Trial(steps, x, labels)


def make_classifier_trial(config: Config, work: Work) -> Trial:
    """Make a trial of a classifier with random weights."""
    from nfpi.classifiers.data import ClassifierData
    from nfpi.classifiers.registry import build_classifier, get_preprocessing
    from nfpi.classifiers.training import ClassifierState, ClassifierTraining, place_model

    own = config.for_dataset(work.dataset).classifiers[work.subject]
    changes: dict[str, Any] = {"weights": None, "pretrained": False, "start_from": None, "normalization": "half"}
    changes |= {"batch_size": work.batch, "epochs": own.warmup_epochs + _EPOCHS, "repeats": 1, "workers": 0}
    trial, chosen = own.model_copy(update=changes), make_device(own.precision)
    images = make_random_images(work)
    data = ClassifierData(images, images, trial, get_preprocessing(trial), trial.standard)
    channels, size, _ = work.shape
    torch.manual_seed(SEED)
    model = place_model(build_classifier(trial, work.classes, channels, size), trial, chosen.device)
    state = ClassifierState.new(model, trial, SEED, steps_per_epoch=1)
    x = torch.from_numpy(images.images).permute(0, 3, 1, 2).contiguous()
    model.train()
    training = ClassifierTraining(state, data, chosen)
    return Trial(training, x.to(chosen.device), torch.from_numpy(images.labels).to(chosen.device))


def make_random_images(work: Work) -> ImageSet:
    """Return a batch of random 8-bit images labelled with each class in turn; also in place of latents."""
    channels, height, width = work.shape
    images = np.random.default_rng(0).integers(256, size=(work.batch, height, width, channels), dtype=np.uint8)
    names = [str(index) for index in range(work.classes)]
    meta = {"name": "random", "classes": names, "dtype": "uint8", "extra": {"flip": True}}
    return ImageSet(images, np.arange(work.batch) % work.classes, meta)


@dataclass(frozen=True)
class Measured:
    """What was found of a training step.

    Attributes:
        seconds: its median time; nan if it failed.
        memory: peak memory of a GPU in GiB, by its allocator; 0 on a CPU.
        fault: why the step failed; empty if it did not.
    """

    seconds: float
    memory: float
    fault: str = ""


def measure_step(config: Config, work: Work, device: torch.device) -> Measured:
    """Make a few training steps, which are real ones, but not compiled."""
    release_memory()
    is_flow = work.stage == "train_flow"
    try:
        trial = make_flow_trial(config, work) if is_flow else make_classifier_trial(config, work)
        if not trial.step().isfinite():
            raise ArithmeticError("the loss is not finite; set a smaller learning_rate")
        # processor time is that on a core of its own, also beside other programs
        clock = time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else timer
        timed = Timer("step()", globals={"step": trial.step}, timer=clock, num_threads=torch.get_num_threads())
        seconds = timed.blocked_autorange(min_run_time=_SECONDS).median
    except (RuntimeError, ValueError, OSError, ImportError, ArithmeticError) as error:
        setting = "training.batch_size" if is_flow else f"classifiers.{work.subject}.batch_size"
        fault = describe_exhausted_memory(error, setting) or format_error(error)
        return Measured(math.nan, 0.0, fault)
    memory = torch.cuda.max_memory_reserved() / 2**30 if device.type == "cuda" else 0.0
    return Measured(seconds, memory)


def release_memory() -> None:
    """Release unused memory, and reset CUDA's peak memory."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


@dataclass
class Subject:
    """The subject of the checks: the trainings of a preset on a device.

    Attributes:
        config: settings of the preset.
        device: device that the checks run on.
        work: the trainings.
        images: sizes of the data sets; None: not known before they are prepared.
        measured: what was found so far, of each model on each data set by batch size.
    """

    config: Config
    device: torch.device
    work: list[Work]
    images: dict[str, Images | None]
    measured: dict[tuple[str, str, int], Measured] = field(default_factory=dict)

    @classmethod
    def find(cls, resolved: Resolved, device: torch.device) -> Subject:
        """Return the trainings of a preset.

        Raises:
            ConfigError: the preset trains no flow, or only on data sets of unknown sizes.
        """
        datasets = dict.fromkeys(run.dataset for run in list_tabled_runs(resolved.config))
        images = {name: _find_images(resolved, name) for name in datasets}
        known = {name: sizes for name, sizes in images.items() if sizes is not None}
        work = list_work(resolved.config, known)
        if not any(one.stage == "train_flow" for one in work):
            raise ConfigError(
                f"preset {resolved.preset}: expected tables with a flow, received none, or only on data sets that are "
                "not prepared (snakemake all --until prepare_data encode_data)"
            )
        return cls(resolved.config, device, work, images)

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a CUDA GPU."""
        return self.device.type == "cuda"

    @property
    def card_memory(self) -> float:
        """Memory of the GPU in GiB."""
        return torch.cuda.get_device_properties(self.device).total_memory / 2**30

    def list_distinct(self) -> Iterator[Work]:
        """Yield the first training of each model on each data set."""
        distinct: dict[tuple[str, str], Work] = {}
        for work in self.work:
            distinct.setdefault((work.label, work.dataset), work)
        yield from distinct.values()

    def measure(self, work: Work) -> Measured:
        """Measure a step; on a CPU, where it may take long, its time is projected from that of a smaller batch."""
        small = work if self.on_gpu else replace(work, batch=min(work.batch, _BATCH_ON_CPU))
        found = self._measure_once(small)
        while small.batch < work.batch and found.seconds < _SHORT_STEP:
            small = replace(small, batch=min(work.batch, 4 * small.batch))
            found = self._measure_once(small)
        return replace(found, seconds=found.seconds * work.batch / small.batch)

    def _measure_once(self, work: Work) -> Measured:
        key = work.label, work.dataset, work.batch
        if key not in self.measured:
            self.measured[key] = measure_step(self.config, work, self.device)
        return self.measured[key]


def _find_images(resolved: Resolved, dataset: str) -> Images | None:
    """Return the sizes of a data set: those of its prepared training images, or as known from its source."""
    config = resolved.config
    splits = config.splits_of(dataset, config.seeds[0])
    folder = Path(resolved.layout.path(SPLITS, dataset=dataset, splits=splits))
    if not (folder / "train").is_dir():
        return Images.of(config.datasets[dataset])
    train = read_image_set(folder / "train", verify=False)
    return Images(len(train), train.num_classes, train.shape)
