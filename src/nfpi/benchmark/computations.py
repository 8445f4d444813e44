"""Count the operations and memory of training steps and forward passes, on fake tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nfpi.benchmark.counting import Counts, OperationCounter, SavedMemory, make_fake, make_fake_mode
from nfpi.benchmark.measurement import Measurement
from nfpi.config.training import TrainingConfig
from nfpi.flows.image_flow import ImageFlow
from nfpi.flows.series import SeriesBounds
from nfpi.linalg import as_accelerator
from nfpi.priors.gaussian import GaussianPrior
from nfpi.training.likelihood import negative_log_likelihood
from nfpi.training.state import TrainingState

CLASSES = 10


@dataclass(frozen=True)
class Step:
    """Operations and memory of one training step.

    Attributes:
        passes: counts of the forward and backward pass.
        update: counts of the optimizer's step, and of the update of the averaged weights if there are any.
        saved: bytes that autograd stores between the forward and the backward pass.
        state: bytes of weights, gradients, the optimizer's moments and the averaged weights.
    """

    passes: Counts
    update: Counts
    saved: int
    state: int

    @property
    def counts(self) -> Counts:
        """Counts of the whole step."""
        return Counts(self.passes.operations + self.update.operations)


def count_flow_step(flow: ImageFlow, batch: int, precision: str, config: TrainingConfig | None = None) -> Step:
    """Count the operations and memory of a training step of a flow, whose parameters become fake.

    Args:
        flow: the flow f.
        batch: number of images.
        precision: `32-true` or `bf16-mixed`, the precision of matrix products and convolutions.
        config: settings of the training, such as the optimizer; None: the defaults.
    """
    config, mode = config or TrainingConfig(), make_fake_mode()
    SeriesBounds(flow).choose()  # chosen before, because fake tensors have no values
    make_fake(flow, mode).train()
    with mode, as_accelerator():
        state = TrainingState.new(flow, config, 0, 1)
        state.average.update(1)
        x, labels = torch.empty(batch, *flow.shape), torch.zeros(batch, dtype=torch.int64)
        means = torch.empty(CLASSES, x[0].numel())
        prior = GaussianPrior(means, means)

        mixed = _InPrecision(precision, flow)

        def compute_loss() -> Tensor:
            return negative_log_likelihood(mixed, prior, x, labels).mean()

        return _count_step(flow, compute_loss, state.optimizer, state.average.update)


def count_classifier_step(
    build_model: Callable[[], nn.Module],
    shape: tuple[int, ...],
    precision: str,
    make_optimizer: Callable[[nn.Module], torch.optim.Optimizer],
) -> Step:
    """Count the operations and memory of a training step of a classifier.

    Args:
        build_model: function that returns the model, which maps images (B, C, H, W) to logits.
        shape: shape of a batch of images, (B, C, H, W).
        precision: `32-true` or `bf16-mixed`.
        make_optimizer: function that returns an optimizer of the model's parameters.
    """
    mode = make_fake_mode()
    model = make_fake(build_model(), mode).train()
    with mode:
        x, labels = torch.empty(shape), torch.zeros(shape[0], dtype=torch.int64)
        mixed = _InPrecision(precision, model)
        return _count_step(model, lambda: F.cross_entropy(mixed(x), labels), make_optimizer(model))


def count_forward(
    module: nn.Module, shape: tuple[int, ...], call: Callable[[nn.Module, Tensor], object] | None = None
) -> Counts:
    """Count the operations of a call in float32 without gradients; the module's parameters become fake.

    Args:
        module: module that is called.
        shape: shape of its input, (B, C, H, W).
        call: computation to count, a function of the module and its input; None: the module's forward pass.
    """
    mode, counter = make_fake_mode(), OperationCounter()
    make_fake(module, mode).eval()
    with mode, as_accelerator(), torch.no_grad():
        x = torch.empty(shape)
        with counter:
            module(x) if call is None else call(module, x)
    return counter.counts


def _count_step(
    module: nn.Module,
    loss: Callable[[], Tensor],
    optimizer: torch.optim.Optimizer,
    average: Callable[[int], object] | None = None,
) -> Step:
    """Count the forward and backward pass and the second optimizer step; the first also allocates the moments."""
    for group in optimizer.param_groups:
        group["foreach"] = True  # the default on GPUs
    passes, update, saved = OperationCounter(), OperationCounter(), SavedMemory()
    with passes:
        with saved.counting():
            value = loss()
        value.backward()
    kept = saved.bytes
    with OperationCounter():
        optimizer.step()
    with update:
        optimizer.step()
        if average is not None:
            average(2)
    weights = sum(map(_count_bytes, module.parameters()))
    moments = sum(
        _count_bytes(value) for of_one in optimizer.state.values() for value in of_one.values() if _is_moment(value)
    )
    state = weights * (3 if average is not None else 2) + moments
    return Step(passes.counts, update.counts, kept, state)


class _InPrecision(nn.Module):
    """A module evaluated in a given precision, with float32 outputs."""

    def __init__(self, precision: str, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self._mixed = precision == "bf16-mixed"

    def forward(self, x: Tensor) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._mixed):
            out = self.module(x)
        return tuple(part.float() for part in out) if isinstance(out, tuple) else out.float()


def _count_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _is_moment(value: object) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0


def measure_counts(device: torch.device, repeats: int) -> Iterator[Measurement]:
    """Count a training step of the paper's flow at its batch size; the counts do not depend on the machine's load."""
    from nfpi.benchmark.convolutions import build_paper_flow

    for precision in ("32-true", "bf16-mixed"):
        step = count_flow_step(build_paper_flow(), 512, precision)
        name = f"training step, paper's flow, batch 512, {precision}: "
        passes, update = len(step.passes.operations), len(step.update.operations)
        yield Measurement(f"{name}forward and backward", "", passes, None, None, "operations", "at most 5000")
        yield Measurement(f"{name}optimizer and average", "", update, None, None, "operations", "")
        yield Measurement(f"{name}read and written", "", step.counts.bytes / 1e9, None, None, "GB", "")
        yield Measurement(f"{name}kept for the backward pass", "", step.saved / 2**30, None, None, "GiB", "")
