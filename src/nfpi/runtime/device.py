"""The device of a stage, with the operations that a training needs of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from nfpi.runtime.processes import Processes


class Device:
    """A device on which one process trains in float32.

    A training loop calls these methods instead of torch's, so that it also runs in mixed precision and in several
    processes, with the subclass :class:`nfpi.runtime.fabric.FabricDevice`.

    Args:
        device: device of this process.
        precision: precision that the subclass trains in, see :func:`nfpi.runtime.precision.choose_precision`; this
            class stores it without using it.

    Attributes:
        device, precision: as given.
        processes: processes that train together, here only this one.
    """

    def __init__(self, device: torch.device, precision: str = "32-true") -> None:
        self.device = device
        self.precision = precision
        self.processes = Processes(device=device)

    @contextmanager
    def launch_processes(self) -> Iterator[Processes]:
        """Run the block in all processes that train together, here in this one alone."""
        yield self.processes

    def setup(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Prepare a module on this device and its optimizer for training, and return the ones to use."""
        return module, optimizer

    @contextmanager
    def fixed_shapes(self) -> Iterator[None]:
        """Let cuDNN choose algorithms by trial within the block; for the forward and backward pass of training steps.

        A trial is made for each new shape. Training batches have few shapes: that of the last batch of an epoch, that
        of all others, and those of their parts if gradients are accumulated. Batches of evaluation and sampling, and of
        latents that are decoded into images, have more shapes, so this method is not used for them.
        """
        before = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = before or self.device.type == "cuda"
        try:
            yield
        finally:
            torch.backends.cudnn.benchmark = before

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients of a scalar loss, and average them over the processes."""
        loss.backward()

    def clip_gradients(self, module: nn.Module, optimizer: torch.optim.Optimizer, max_norm: float) -> None:
        """Scale the gradients down to norm `max_norm` if their norm is larger."""
        nn.utils.clip_grad_norm_(module.parameters(), max_norm)

    def state_dict(self) -> dict[str, Any]:
        """Return the state that changes during training, i.e. that of float16's gradient scaler; may be empty."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state of :meth:`state_dict`."""
