"""The choice of a device: CUDA, MPS or the CPU."""

from __future__ import annotations

import ctypes
import logging
import platform
from pathlib import Path

import torch

from nfpi.runtime.allocation import require_allocated_gpu, uses_cpu_on_purpose
from nfpi.runtime.device import Device
from nfpi.runtime.precision import choose_precision

logger = logging.getLogger(__name__)

# constants of <malloc.h>
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


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
    require_allocated_gpu(devices)
    count, kind = max(1, min(devices, count_visible_gpus())), _choose_kind()
    chosen = choose_precision(precision, torch.device(kind))
    if count == 1 and chosen == "32-true":
        device = Device(_select_first_device(kind))
    else:
        from nfpi.runtime.fabric import FabricDevice  # Lightning Fabric takes as long to import as torch

        device = FabricDevice(chosen, count, kind)
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
