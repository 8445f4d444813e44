"""Compute batches of a preset on a device, on random inputs: how long they take, and how much memory they need."""

from __future__ import annotations

import gc
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.benchmark import Timer

from nfpi.checks.work import LATENT_CHANNELS, Work
from nfpi.classifiers.registry import build_classifier
from nfpi.config.settings import Config
from nfpi.data.store import ImageSet
from nfpi.flows.bijection import ImageFlow
from nfpi.flows.registry import build_flow, describe_flow
from nfpi.linalg import precise_device
from nfpi.priors.gaussian import GaussianPrior
from nfpi.runtime.device import make_device
from nfpi.runtime.faults import describe_exhausted_memory, format_error
from nfpi.runtime.precision import full_precision
from nfpi.training.batches import TrainingData
from nfpi.training.flow_training import FlowTraining
from nfpi.training.state import TrainingState

SEED = 0
_SECONDS = 0.5
"""shortest time over which a batch is timed"""
_STABLE_DIFFUSION: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": LATENT_CHANNELS,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
"""Architecture of stabilityai/sd-vae-ft-mse."""


@dataclass(frozen=True)
class Measured:
    """What was found of a batch.

    Attributes:
        seconds: median time of the batch; nan if it failed.
        memory: peak memory of a GPU in GiB, by its allocator; 0 on a CPU.
        fault: why the batch failed; empty if it did not.
    """

    seconds: float
    memory: float
    fault: str = ""


@contextmanager
def silenced() -> Iterator[None]:
    """Log no epochs within the block, as they are only a few steps."""
    log = logging.getLogger("nfpi")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)


def measure_batch(config: Config, work: Work, device: torch.device) -> Measured:
    """Compute a batch a few times, without further processes; training steps are real ones, but not compiled."""
    release_memory()
    try:
        compute, batches = _make_computation(config, work, device)
        result = compute()
        if isinstance(result, Tensor) and not result.isfinite().all():
            raise ArithmeticError("the result is not finite; set a smaller learning_rate")
        timer = Timer("compute()", globals={"compute": compute}, num_threads=torch.get_num_threads())
        seconds = timer.blocked_autorange(min_run_time=_SECONDS).median / batches
    except (RuntimeError, ValueError, OSError, ImportError, ArithmeticError) as error:
        setting = f"classifiers.{work.subject}.batch_size" if "classifier" in work.kind else "training.batch_size"
        fault = describe_exhausted_memory(error, setting) or format_error(error)
        return Measured(math.nan, 0.0, fault)
    memory = torch.cuda.max_memory_reserved() / 2**30 if device.type == "cuda" else 0.0
    return Measured(seconds, memory)


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


def release_memory() -> None:
    """Release unused memory, and reset CUDA's peak memory."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


class Trial:
    """A flow of a preset, initialised on random images, and its training steps under Gaussians around random means.

    Args:
        config: settings of the preset.
        work: training steps of the flow.

    Attributes:
        config: settings of the training.
        device: device and precision.
        state: state of the training, with the flow.
        x, labels: a batch, (B, C, H, W) in [-1, 1] and (B,).
        prior: the Gaussians.
    """

    def __init__(self, config: Config, work: Work) -> None:
        training = config.resolve_training(work.dataset, work.subject)
        changes = {"batch_size": work.batch, "compile": False, "epochs": training.warmup_steps + 10_000}
        self.config = training.model_copy(update=changes)
        self.device = make_device(training.precision)
        device = self.device.device
        torch.manual_seed(SEED)
        flow = build_model(config, work).to(device)
        assert isinstance(flow, ImageFlow)
        self.x = (2 * torch.rand(work.batch, *work.shape) - 1).to(device)
        self.labels = (torch.arange(work.batch) % work.classes).to(device)
        with torch.no_grad():
            flow.initialize(self.x)
        mean = torch.randn(work.classes, self.x[0].numel())
        self.prior = GaussianPrior(mean, torch.ones_like(mean)).to(precise_device(device))
        images = make_random_images(work.shape, work.classes, work.batch)
        self._data = TrainingData(images, None, self.config, device)
        self.use_state(TrainingState.new(flow, self.config, SEED, steps_per_epoch=1))

    def use_state(self, state: TrainingState) -> None:
        """Make further steps from another state."""
        self.state = state
        self._training = FlowTraining(state, self.prior, self._data, self.device, self.config.epochs)
        self._training.choose_bounds(epoch_begins=True)

    def step(self) -> Tensor:
        """Make one training step; return the mean of −log p(x | y) before the update, ()."""
        self.state.epoch_loss.zero_()
        self._training.step(self.x, self.labels)
        return self.state.epoch_loss / len(self.x)


def _make_computation(config: Config, work: Work, device: torch.device) -> tuple[Callable[[], object], int]:
    """Return what computes batches of a kind, see :attr:`nfpi.checks.work.Work.kind`, and their number."""
    if work.kind == "flow_step":
        return Trial(config, work).step, 1
    if work.kind == "classifier_step":
        return _make_classifier_epoch(config, work), 2
    # in float32, as in evaluation, sampling and augmentation
    x = (2 * torch.rand(work.batch, *work.shape) - 1).to(device)
    model = build_model(config, work).to(device).eval()
    if isinstance(model, ImageFlow):
        with torch.no_grad():
            model.initialize(x)
    method = getattr(model, work.kind.partition("_")[2])
    compute = (lambda: method(x)[0]) if isinstance(model, ImageFlow) else (lambda: method(x))
    return torch.no_grad()(full_precision()(compute)), 1


def _make_classifier_epoch(config: Config, work: Work) -> Callable[[], Tensor]:
    """Return an epoch of two batches from random weights."""
    from nfpi.classifiers.data import ClassifierData
    from nfpi.classifiers.registry import get_preprocessing
    from nfpi.classifiers.training import train_classifier

    own = config.for_dataset(work.dataset).classifiers[work.subject]
    changes: dict[str, Any] = {"weights": None, "pretrained": False, "start_from": None, "workers": 0}
    changes |= {"batch_size": work.batch, "epochs": 1, "repeats": 1, "warmup_epochs": 0, "normalization": "half"}
    trial = own.model_copy(update=changes)
    images = make_random_images(work.shape, work.classes, 2 * work.batch)
    none = replace(images, images=images.images[:0], labels=images.labels[:0])
    chosen, model = make_device(own.precision), build_model(config, work)

    def compute() -> Tensor:
        data = ClassifierData(images, none, trial, get_preprocessing(trial), trial.standard, None)
        return torch.tensor(train_classifier(model, data, SEED, chosen).log[-1]["train_loss"])

    return compute


def make_random_images(shape: tuple[int, int, int], classes: int, count: int) -> ImageSet:
    """Return random 8-bit images, each (C, H, W), labelled with each class in turn; also in place of latents."""
    channels, height, width = shape
    images = np.random.default_rng(0).integers(256, size=(count, height, width, channels), dtype=np.uint8)
    names = [str(index) for index in range(classes)]
    meta = {"name": "random", "classes": names, "dtype": "uint8", "extra": {"flip": True}}
    return ImageSet(images, np.arange(count) % classes, meta)
