"""The device of a stage: its choice, and the operations that a training needs of it."""

from __future__ import annotations

import ctypes
import logging
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nfpi.runtime.allocation import require_allocated_gpu, require_kernels, uses_cpu_on_purpose
from nfpi.runtime.precision import choose_precision
from nfpi.runtime.processes import Processes

logger = logging.getLogger(__name__)

# constants of <malloc.h>
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


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


def make_device(precision: str = "32-true", devices: int = 1) -> Device:
    """Choose the best device, or up to `devices` GPUs if there are several, and prepare this process for it.

    The precision applies to training steps on the module that :meth:`Device.setup` returns. All else is float32
    without TF32, which would break the inverse of a flow. On a CPU, float32 runs are reproducible bit for bit.

    Args:
        precision: `auto`, `32-true`, `tf32`, `bf16-mixed` or `16-mixed`; see
            :func:`nfpi.runtime.precision.choose_precision`. :attr:`Device.precision` is never `auto`.
        devices: largest number of GPUs, with one process each, see :meth:`Device.launch_processes`.

    Raises:
        DeviceError: a GPU is allocated to this process, and torch cannot use it; or `NFPI_DEVICE` has another value
            than those it may have.
        ValueError: the device does not compute in this precision.
    """
    require_allocated_gpu()
    count, kind = max(1, min(devices, count_visible_gpus())), _choose_kind()
    chosen = choose_precision(precision, torch.device(kind))
    if count == 1 and chosen == "32-true":
        device = Device(_select_first_device(kind))
    else:
        from nfpi.runtime.fabric import FabricDevice  # Lightning Fabric takes as long to import as torch

        device = FabricDevice(chosen, count, kind)
    if kind == "cuda":
        require_kernels(device.device)
    if precision == "auto":
        logger.info("precision: %s on %s", chosen, describe_device(device.device))
    prepare_process(device.device)
    return device


def prepare_process(device: torch.device) -> None:
    """Prepare this process to compute on a device: without TF32 by default, reproducible bit for bit on a CPU."""
    keep_freed_memory()
    torch.backends.cudnn.allow_tf32 = False
    if device.type == "cpu":  # slower on other devices
        # uninitialized memory is never read here
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        # torch.use_deterministic_algorithms does the same, but imports the compiler
        torch.set_deterministic_debug_mode("warn")


@contextmanager
def restored_settings() -> Iterator[None]:
    """Restore, after the block, what :func:`make_device` and :func:`prepare_process` set: current GPU, determinism.

    :func:`nfpi.runtime.precision.full_precision` restores the settings of TF32.
    """
    gpu = torch.cuda.current_device() if torch.cuda.is_initialized() else None
    mode = torch.get_deterministic_debug_mode()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
        if gpu is not None:
            torch.cuda.set_device(gpu)


def count_visible_gpus() -> int:
    """Count the GPUs of CUDA (or ROCm) that this process may use."""
    return 0 if uses_cpu_on_purpose() else torch.cuda.device_count()


def _choose_kind() -> str:
    if uses_cpu_on_purpose():
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _select_first_device(kind: str) -> torch.device:
    if kind == "cpu":
        return torch.device("cpu")
    device = torch.device(kind, 0)
    if kind == "cuda":
        torch.cuda.set_device(device)
    return device


def describe_device(device: torch.device) -> str:
    """Name a device, with the number of threads of a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return f"{_read_processor_name()} ({torch.get_num_threads()} threads)"
    return device.type


def _read_processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, to reuse it in the next step.

    A training step frees and allocates a gigabyte in blocks of some megabytes. glibc returns such blocks to the system,
    which clears every page before it is used again; on a CPU, this takes a sixth of the step's time. Does
    nothing for other C libraries.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if platform.libc_ver()[0] == "glibc" else None
    # mallopt returns 0 if it refuses a value: some versions of glibc accept at most 2²⁵ here
    if mallopt is not None and (mallopt(_M_MMAP_THRESHOLD, 2**30) or mallopt(_M_MMAP_THRESHOLD, 2**25)):
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
