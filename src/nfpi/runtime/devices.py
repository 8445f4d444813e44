"""The device a stage runs on, or several of them, chosen by itself: CUDA, MPS, else the CPU."""

from __future__ import annotations

import ctypes
import platform
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from nfpi.runtime.processes import OneMachine

# of <malloc.h>
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def make_fabric(precision: str = "32-true", devices: int = 1) -> Fabric:
    """One device of the best kind there is, with this precision; or `devices` GPUs, if there are so many.

    Several have a process each, see :func:`nfpi.runtime.processes.one_process_a_device`.

    « 32-true » means it: GPUs that would round the factors of a float32 convolution to TF32 are told not to, so that
    the inverse of a flow is one. `bf16-mixed` is the way to speed. On a CPU the same run gives the same bits.
    """
    keep_freed_memory()
    warnings.filterwarnings("ignore", message=".*`srun` command is available.*")  # one process needs none
    torch.backends.cudnn.allow_tf32 = precision != "32-true"
    count = max(1, min(devices, visible_gpus()))
    several: dict[str, Any] = {"strategy": "ddp", "plugins": [OneMachine()]} if count > 1 else {}
    fabric = Fabric(accelerator="auto", devices=count, precision=precision, **several)  # type: ignore[arg-type]
    if fabric.device.type == "cpu":  # elsewhere it costs speed
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # none is read
        torch.use_deterministic_algorithms(True, warn_only=True)
    return fabric


def visible_gpus() -> int:
    """How many GPUs of CUDA (or ROCm) this process may use."""
    return torch.cuda.device_count()


def describe_device(device: torch.device) -> str:
    """What the device is called, with its number of threads where it is a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return f"{_processor_name()} ({torch.get_num_threads()} threads)"
    return device.type


def _processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, for its next step.

    A training step frees and takes again a gigabyte in blocks of some megabytes. glibc hands such blocks back to the
    system, which clears each page when it is asked for the next time; on a CPU that costs a sixth of the step.
    Other C libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if platform.libc_ver()[0] == "glibc" else None
    if mallopt is not None and (mallopt(_M_MMAP_THRESHOLD, 2**30) or mallopt(_M_MMAP_THRESHOLD, 2**25)):
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
