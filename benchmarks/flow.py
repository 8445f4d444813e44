"""Compare computations of the paper's flow with the bare convolutions of its coupling nets, and e^S x with e^S."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
import torch.nn.functional as F
from counting import count_flow_step
from timing import Measurement, compare_times, measure_medians
from torch import Tensor, nn

from nfpi.config.flows import MatrixExponentialSettings, TrainingConfig
from nfpi.data.domain import PixelDomain
from nfpi.data.store import ImageSet
from nfpi.evaluation import evaluate_flow
from nfpi.flows.coupling import Coupling
from nfpi.flows.matrix_exponential import MatrixExponentialFlow
from nfpi.flows.networks import NormalizedConv2d
from nfpi.linalg import exponential_action
from nfpi.priors.gaussian import GaussianPrior
from nfpi.training.batches import TrainingData, latent_statistics
from nfpi.training.likelihood import negative_log_likelihood

PAPER_SHAPE = (3, 32, 32)
CLASSES = 10


@dataclass
class Subject:
    """A flow that is initialised on random images, and Gaussians of ten classes.

    Args:
        settings: settings of the flow.
        device: device of the flow.
        batch: number of images that it is initialised on.
        name: name of the flow.
        precision: `32-true` or `bf16-mixed`.
        has_target: whether its training step has a target.
    """

    settings: MatrixExponentialSettings
    device: torch.device
    batch: int
    name: str = "paper's flow"
    precision: str = "32-true"
    has_target: bool = True

    def __post_init__(self) -> None:
        self.flow = MatrixExponentialFlow(PAPER_SHAPE, **self.settings.model_dump()).to(self.device)
        self.x = (2 * torch.rand(self.batch, *PAPER_SHAPE) - 1).to(self.device)
        self.flow.initialize(self.x)

    def autocast(self) -> torch.autocast:
        """Return the context of a training step's forward pass."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16-mixed")

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


def measure_training_step(subject: Subject, repeats: int) -> Iterator[Measurement]:
    """Time forward and backward of the likelihood, without the optimizer."""
    flow, x, labels = subject.flow, subject.x, torch.randint(CLASSES, (subject.batch,)).to(subject.device)
    couplings = [module for module in flow.modules() if isinstance(module, Coupling)]
    inputs, convolutions = record_convolutions(flow, x)

    def step() -> None:
        flow.zero_grad()
        with subject.autocast():
            loss = negative_log_likelihood(flow, subject.prior, x, labels).mean()
        loss.backward()

    def run_nets() -> None:
        flow.zero_grad()
        for coupling, recorded in zip(couplings, inputs, strict=True):
            with subject.autocast():
                out = coupling.net(recorded)
            out.backward(torch.ones_like(out))

    def run_convolutions() -> None:
        for image, weight, bias, padding in convolutions:
            weight.grad = bias.grad = image.grad = None
            with subject.autocast():
                out = F.conv2d(image, weight, bias, padding=padding)
            out.backward(torch.ones_like(out))

    ours, coupling_nets, bare_convolutions = measure_medians(repeats, step, run_nets, run_convolutions)
    name = f"training step, {subject.name}, batch {subject.batch}, {subject.precision}"
    nets, convolutions_alone = ("at most 1.10×", "at most 1.22×") if subject.has_target else ("", "")
    yield compare_times(name, "its coupling nets alone", ours, coupling_nets, nets)
    yield compare_times(name, "their bare convolutions", ours, bare_convolutions, convolutions_alone)


def measure_inference(subject: Subject, repeats: int) -> Iterator[Measurement]:
    """Time computations without gradients: evaluation, statistics, classification, sampling.

    The ELUs read and write each output of a convolution once more, which alone costs about a tenth of the convolutions'
    time on a CPU.
    """
    from nfpi.model import ClassConditionalFlow

    device, batch = subject.device, subject.batch
    flow, prior, images = subject.flow, subject.prior, subject.images
    data: dict[str, object] = {"name": None, "classes": images.classes, "dtype": "uint8", "extra": {}}
    noise = {"grey_noise": 0.0, "latent_noise": 0.0}
    config = {"data": data, "training": noise, "seed": 0}
    model = ClassConditionalFlow(flow, prior, config)
    training = TrainingData(images, None, TrainingConfig(batch_size=batch, augmentation="none"), device)
    with torch.no_grad():
        _, convolutions = record_convolutions(flow, subject.x)

    @torch.no_grad()
    def run_convolutions() -> None:
        for image, weight, bias, padding in convolutions:
            F.conv2d(image, weight, bias, padding=padding)

    def evaluate() -> None:
        evaluate_flow(flow, prior, images, batch_size=batch, seed=0, domain=PixelDomain(0.0))

    uses: dict[str, Callable[[], object]] = {
        "evaluate": evaluate,
        "statistics of latents": lambda: latent_statistics(flow, training, seed=0),
        "predict": lambda: model.predict(images.images),
        "sample": lambda: model.sample(images.labels),
    }
    *times, bare_convolutions = measure_medians(repeats, *uses.values(), run_convolutions)
    reference = "the bare convolutions of its coupling nets"
    for name, ours in zip(uses, times, strict=True):
        title = f"{name}, {subject.name}, {batch} images"
        yield compare_times(title, reference, ours, bare_convolutions, "at most 1.20×")


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


def measure_actions(device: torch.device, repeats: int, batch: int) -> Iterator[Measurement]:
    """Time e^S x with its gradients, for the sizes of the paper's flow."""
    for channels, pixels in ((6, 256), (12, 64), (24, 16)):
        field = ((2 * torch.rand(batch, channels, channels, pixels) - 1) / channels).to(device).requires_grad_()
        vector = torch.randn(batch, channels, pixels, device=device, requires_grad=True)
        upstream = torch.randn_like(vector)
        matrices = field.detach().permute(0, 3, 2, 1).flatten(0, 1).contiguous().requires_grad_()
        columns = vector.detach().permute(0, 2, 1).reshape(-1, channels, 1).contiguous().requires_grad_()
        upstream_columns = upstream.permute(0, 2, 1).reshape(-1, channels, 1).contiguous()
        fast, slow = measure_medians(
            repeats,
            partial(apply_action, field, vector, upstream),
            partial(multiply_by_exponential, matrices, columns, upstream_columns),
        )
        name = f"coupling action e^S x, forward and backward, C = {channels}"
        yield compare_times(name, "torch.linalg.matrix_exp and a product", fast, slow, "at least 8×")


def apply_action(field: Tensor, vector: Tensor, upstream: Tensor) -> tuple[Tensor, ...]:
    """Compute the gradients of e^S x, with S (B, C, C, pixels) and x (B, C, pixels)."""
    return torch.autograd.grad(exponential_action(field, vector, 1.0), (field, vector), upstream)


def multiply_by_exponential(matrices: Tensor, columns: Tensor, upstream: Tensor) -> tuple[Tensor, ...]:
    """Compute the same from explicit matrix exponentials, with S (B·pixels, C, C) and x (B·pixels, C, 1)."""
    return torch.autograd.grad(torch.linalg.matrix_exp(matrices) @ columns, (matrices, columns), upstream)


def count_operations(settings: MatrixExponentialSettings, batch: int) -> Iterator[Measurement]:
    """Count a training step; the counts do not depend on the machine's load."""
    for precision in ("32-true", "bf16-mixed"):
        step = count_flow_step(MatrixExponentialFlow(PAPER_SHAPE, **settings.model_dump()), batch, precision)
        name = f"training step, paper's flow, batch {batch}, {precision}: "
        passes, update = len(step.passes), len(step.update)
        yield Measurement(f"{name}forward and backward", "", passes, unit="operations", target="at most 5000")
        yield Measurement(f"{name}optimizer and average", "", update, unit="operations")
        yield Measurement(
            f"{name}read and written", "", sum(operation.bytes for operation in step.operations) / 1e9, unit="GB"
        )
        yield Measurement(f"{name}kept for the backward pass", "", step.saved / 2**30, unit="GiB")
