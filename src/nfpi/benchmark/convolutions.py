"""Compare computations of the paper's flow with the bare convolutions of its coupling nets."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nfpi.benchmark.measurement import Measurement, compare_times, measure_medians
from nfpi.config.flows import MatrixExponentialSettings
from nfpi.config.training import TrainingConfig
from nfpi.data.domain import PixelDomain
from nfpi.data.store import ImageSet
from nfpi.evaluation import evaluate_flow
from nfpi.flows.coupling import Coupling
from nfpi.flows.matrix_exponential import MatrixExponentialFlow
from nfpi.flows.networks import NormalizedConv2d
from nfpi.priors.gaussian import GaussianPrior
from nfpi.training.batches import TrainingData, latent_statistics
from nfpi.training.likelihood import negative_log_likelihood

logger = logging.getLogger(__name__)

PAPER_SHAPE = (3, 32, 32)
CLASSES = 10


def build_paper_flow() -> MatrixExponentialFlow:
    """Build the flow of the paper for CIFAR's images."""
    return MatrixExponentialFlow(PAPER_SHAPE, **MatrixExponentialSettings().model_dump())


@dataclass
class Subject:
    """A flow that is initialised on random images, and Gaussians of ten classes.

    Args:
        device: device of the flow.
        batch: number of images that it is initialised on.
    """

    device: torch.device
    batch: int

    def __post_init__(self) -> None:
        self.flow = build_paper_flow().to(self.device)
        self.x = (2 * torch.rand(self.batch, *PAPER_SHAPE) - 1).to(self.device)
        self.flow.initialize(self.x)

    @cached_property
    def prior(self) -> GaussianPrior:
        """Random means, identity covariances."""
        dimensions = self.x[0].numel()
        return GaussianPrior(torch.randn(CLASSES, dimensions), torch.ones(CLASSES, dimensions)).to(self.device)

    @cached_property
    def images(self) -> ImageSet:
        """Random 8-bit images, `batch` of them, labelled 0, 1, …, 9, 0, 1, …"""
        generator = np.random.default_rng(0)
        pixels = generator.integers(256, size=(self.batch, *PAPER_SHAPE[1:], PAPER_SHAPE[0]), dtype=np.uint8)
        classes = [str(index) for index in range(CLASSES)]
        return ImageSet(pixels, np.arange(self.batch) % CLASSES, {"name": "random", "classes": classes, "extra": {}})


def measure_training_step(device: torch.device, repeats: int, batch: int = 16) -> Iterator[Measurement]:
    """Time forward and backward of the likelihood at the paper's size, without the optimizer."""
    subject = Subject(device, batch)
    flow, x, labels = subject.flow, subject.x, torch.randint(CLASSES, (batch,)).to(device)
    couplings = [module for module in flow.modules() if isinstance(module, Coupling)]
    inputs, convolutions = record_convolutions(flow, x)

    def step() -> None:
        flow.zero_grad()
        negative_log_likelihood(flow, subject.prior, x, labels).mean().backward()

    def run_nets() -> None:
        flow.zero_grad()
        for coupling, recorded in zip(couplings, inputs, strict=True):
            out = coupling.net(recorded)
            out.backward(torch.ones_like(out))

    def run_convolutions() -> None:
        for image, weight, bias, padding in convolutions:
            weight.grad = bias.grad = image.grad = None
            out = F.conv2d(image, weight, bias, padding=padding)
            out.backward(torch.ones_like(out))

    ours, coupling_nets, bare_convolutions = measure_medians(device, repeats, step, run_nets, run_convolutions)
    name = f"training step, paper's flow, batch {batch}"
    yield compare_times(name, "its coupling nets alone", ours, coupling_nets, "at most 1.10×")
    yield compare_times(name, "their bare convolutions", ours, bare_convolutions, "at most 1.22×")


def measure_inference(device: torch.device, repeats: int, batch: int = 32) -> Iterator[Measurement]:
    """Time computations without gradients at the paper's size: evaluation, statistics, classification, sampling.

    Classification and sampling are also timed with compiled networks, where there is a compiler. Uncompiled, the ELUs
    read and write each output of a convolution once more, which alone costs about a tenth of the convolutions' time on
    a CPU.
    """
    from nfpi.model import ClassConditionalFlow

    subject = Subject(device, batch)
    flow, prior, images = subject.flow, subject.prior, subject.images
    data: dict[str, object] = {"name": None, "classes": images.classes, "dtype": "uint8", "extra": {}}
    noise = {"grey_noise": 0.0, "latent_noise": 0.0}
    config = {"data": data, "training": noise, "seed": 0}
    model, compiled = ClassConditionalFlow(flow, prior, config), ClassConditionalFlow(flow, prior, config)
    training = TrainingData(images, None, TrainingConfig(batch_size=batch, augmentation="none"), device)
    with torch.no_grad():
        _, convolutions = record_convolutions(flow, subject.x)

    @torch.no_grad()
    def run_convolutions() -> None:
        for image, weight, bias, padding in convolutions:
            F.conv2d(image, weight, bias, padding=padding)

    def evaluate() -> None:
        evaluate_flow(flow, prior, images, batch_size=batch, seed=0, domain=PixelDomain(0.0), device=device)

    uses: dict[str, Callable[[], object]] = {
        "evaluate": evaluate,
        "statistics of latents": lambda: latent_statistics(flow, training, seed=0),
        "predict": lambda: model.predict(images.images),
        "sample": lambda: model.sample(images.labels),
    }
    targets = ["at most 1.20×"] * len(uses)
    try:
        compiled.compile()
    except ValueError as error:
        logger.warning("not measured: %s", error)
    else:
        uses["predict, compiled"] = lambda: compiled.predict(images.images)
        uses["sample, compiled"] = lambda: compiled.sample(images.labels)
        targets += ["at most 1.10×"] * 2
    # networks are compiled in the warm-up run
    *times, bare_convolutions = measure_medians(device, repeats, *uses.values(), run_convolutions)
    for name, ours, target in zip(uses, times, targets, strict=True):
        reference = "the bare convolutions of its coupling nets"
        yield compare_times(f"{name}, paper's flow, {batch} images", reference, ours, bare_convolutions, target)


def record_convolutions(
    flow: MatrixExponentialFlow, x: Tensor
) -> tuple[list[Tensor], list[tuple[Tensor, Tensor, Tensor, int]]]:
    """Copy the inputs of the coupling nets, and (input, weight, zeros as bias, padding) of every convolution."""
    inputs: list[Tensor] = []
    convolutions: list[tuple[Tensor, Tensor, Tensor, int]] = []

    def record_net(module: nn.Module, received: tuple[Tensor, ...]) -> None:
        inputs.append(received[0].detach().clone().requires_grad_())

    def record_convolution(module: nn.Module, received: tuple[Tensor, ...]) -> None:
        weight = module.weight
        assert isinstance(weight, Tensor)
        image = received[0].detach().clone().requires_grad_()
        bias = weight.new_zeros(len(weight), requires_grad=True)
        convolutions.append((image, weight.detach().clone().requires_grad_(), bias, weight.shape[-1] // 2))

    handles = []
    for module in flow.modules():
        if isinstance(module, Coupling):
            handles.append(module.net.register_forward_pre_hook(record_net))
        elif isinstance(module, (NormalizedConv2d, nn.Conv2d)):
            handles.append(module.register_forward_pre_hook(record_convolution))
    flow(x)
    for handle in handles:
        handle.remove()
    return inputs, convolutions
