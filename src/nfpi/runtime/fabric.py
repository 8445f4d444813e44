"""Mixed precision and several processes, by Lightning Fabric."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision, Precision
from lightning_fabric.plugins.environments import LightningEnvironment
from lightning_fabric.plugins.environments.lightning import find_free_network_port
from torch import Tensor, nn

from nfpi.runtime.device import Device
from nfpi.runtime.job_log import RANK_AND_PORT
from nfpi.runtime.precision import tensor_float32
from nfpi.runtime.processes import ADDRESS, Processes, connected


class OneMachine(LightningEnvironment):
    """Environment of Fabric with the ranks of :mod:`nfpi.runtime.processes`, even in a job of a cluster."""

    def __init__(self) -> None:
        super().__init__()
        rank, port = os.environ.get(RANK_AND_PORT, "0 0").split()
        self._rank, self._main_port = int(rank), int(port) or find_free_network_port()

    @property
    def creates_processes_externally(self) -> bool:
        """Tell Fabric not to start processes."""
        return True

    @property
    def main_address(self) -> str:
        """Address of the first process."""
        return ADDRESS

    def local_rank(self) -> int:
        """Rank of this process."""
        return self._rank

    def node_rank(self) -> int:
        """Rank of this machine, which is the only one."""
        return 0


class AutocastPrecision(MixedPrecision):
    """Autocast inside the module, without rounding its inputs.

    By default, Fabric rounds the inputs too. Images would lose their dequantisation noise: grey levels are 2⁻⁷ apart,
    and bfloat16 numbers near 1 are 2⁻⁸ apart.
    """

    def convert_input(self, data: Any) -> Any:
        """Leave the inputs as they are."""
        return data


class TensorFloat32Precision(Precision):
    """Convolutions in TF32, forward and backward."""

    def forward_context(self) -> AbstractContextManager[None]:
        """Allow TF32 during the forward pass."""
        return tensor_float32()

    def backward(self, tensor: Tensor, model: nn.Module | None, *args: Any, **kwargs: Any) -> None:
        """Allow TF32 during the backward pass."""
        with tensor_float32():
            super().backward(tensor, model, *args, **kwargs)


def _make_precision_plugin(precision: str, kind: str) -> Precision:
    if precision == "32-true":
        return Precision()
    return TensorFloat32Precision() if precision == "tf32" else AutocastPrecision(precision, kind)  # type: ignore[arg-type]


class FabricDevice(Device):
    """One device in mixed precision or TF32, or several devices with one process each.

    Args:
        precision: `32-true`, `tf32`, `bf16-mixed` or `16-mixed`; the device must support it.
        count: number of devices.
        kind: kind of the devices: cpu, cuda or mps.
    """

    def __init__(self, precision: str, count: int, kind: str) -> None:
        # srun is not used here
        warnings.filterwarnings("ignore", message=".*`srun` command is available.*")
        # the first float16 gradients may overflow; their step is skipped, and the schedule continues as intended
        warnings.filterwarnings("ignore", message=".*`lr_scheduler.step\\(\\)` before `optimizer.step\\(\\)`.*")
        self._environment = OneMachine()
        # also for one device: Fabric would read the number of tasks of a SLURM job, and refuse several
        plugins: list[Any] = [_make_precision_plugin(precision, kind), self._environment]
        strategy = "ddp" if count > 1 else "auto"
        self._fabric = Fabric(accelerator=kind, strategy=strategy, devices=count, plugins=plugins)
        super().__init__(self._fabric.device, precision)
        if count > 1:
            self.processes = Processes(self._environment.local_rank(), count, self.device)

    @contextmanager
    def launch_processes(self) -> Iterator[Processes]:
        """Run the block in all processes that train together; the first one starts the others."""
        if self.processes.count == 1:
            yield self.processes
            return
        with connected(self.processes, self._environment.main_port):
            self._fabric.launch()
            yield self.processes

    def setup(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Wrap a module and its optimizer."""
        wrapped: tuple[nn.Module, torch.optim.Optimizer] = self._fabric.setup(module, optimizer)
        return wrapped

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients of a scalar loss, and average them over the processes."""
        self._fabric.backward(loss)

    def clip_gradients(self, module: nn.Module, optimizer: torch.optim.Optimizer, max_norm: float) -> None:
        """Scale the gradients down to norm `max_norm` if their norm is larger."""
        self._fabric.clip_gradients(module, optimizer, max_norm=max_norm, error_if_nonfinite=False)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of float16's gradient scaler (`16-mixed`); empty in other precisions."""
        return self._fabric.strategy.precision.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state of :meth:`state_dict`."""
        self._fabric.strategy.precision.load_state_dict(dict(state))
