"""The device of a stage, and how a training uses it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from nfpi.runtime.processes import Processes


class Device:
    """A device that trains in float32.

    A training calls its methods instead of torch's, so that the same loop runs in mixed precision and in several
    processes (:class:`nfpi.runtime.fabric.FabricDevice`).

    Args:
        device: device of this process.
        precision: precision of trainings, see :func:`nfpi.runtime.precision.choose_precision`.

    Attributes:
        device, precision: as given.
        processes: processes that train together; only this one.
    """

    def __init__(self, device: torch.device, precision: str = "32-true") -> None:
        self.device = device
        self.precision = precision
        self.processes = Processes(device=device)

    @contextmanager
    def together(self) -> Iterator[Processes]:
        """Run the block in all processes that train together."""
        yield self.processes

    def setup(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Prepare a module on this device and its optimizer for training; call the ones returned."""
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = (
                True  # batches of a training have two shapes, the last one's and the others'
            )
        return module, optimizer

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients of a loss, (); averaged over the processes."""
        loss.backward()

    def clip_gradients(self, module: nn.Module, optimizer: torch.optim.Optimizer, max_norm: float) -> None:
        """Scale the gradients down to norm `max_norm` if theirs is larger."""
        nn.utils.clip_grad_norm_(module.parameters(), max_norm)

    def state_dict(self) -> dict[str, Any]:
        """Return the state that changes during training, i.e. the scale of 16-bit gradients; may be empty."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state of :meth:`state_dict`."""
