"""Check that torch can use the GPU allocated to a job; otherwise the job fails instead of running on the CPU."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import torch

from nfpi.runtime.gpu_variables import CHOICE, HIDING, VISIBLE

_CHOICES = ("auto", "cpu", "cuda")
_SLURM = ("SLURM_JOB_GPUS", "SLURM_STEP_GPUS")
_DRIVER = Path("/proc/driver/nvidia/gpus")
_ARCHITECTURE = re.compile(r"(sm|compute)_(\d+)(\d)([af]?)")

_PYPI = "pip install --force-reinstall torch torchvision"
_CU126 = "pip install --force-reinstall 'torch<2.15' torchvision --index-url https://download.pytorch.org/whl/cu126"
"""The last build with kernels for V100 and older GPUs. It also works with drivers for CUDA 12."""
_ON_PURPOSE = f"to compute on the CPU on purpose, set {CHOICE}=cpu"


class DeviceError(ValueError):
    """Raised if torch cannot use the allocated GPU, or `NFPI_DEVICE` has an invalid value."""


def uses_cpu_on_purpose() -> bool:
    """Return whether `NFPI_DEVICE` asks for the CPU.

    Raises:
        DeviceError: its value is invalid.
    """
    return _read_choice() == "cpu"


def require_allocated_gpu(devices: int = 1) -> None:
    """Check that torch can use the GPU allocated to this process; no-op without such a GPU.

    A GPU counts as allocated if SLURM or CUDA_VISIBLE_DEVICES names one, if NVIDIA's driver finds one outside SLURM, or
    if `NFPI_DEVICE=cuda` requires one. The kernels of builds of torch for AMD's GPUs are not checked.

    Args:
        devices: number of GPUs that the processes of this run use; torch must have kernels for each of them.

    Raises:
        DeviceError: torch finds no GPU, or has no kernels for it, and the message says what to install; or the value of
            `NFPI_DEVICE` is invalid.
    """
    choice = _read_choice()
    if choice == "cpu":
        return
    if torch.cuda.is_available():
        _require_kernels(min(devices, torch.cuda.device_count()))
        return
    allocation = _describe_allocation() or (f"{CHOICE}=cuda" if choice == "cuda" else None)
    if allocation is not None:
        raise DeviceError(f"device: expected a GPU ({allocation}), received {_describe_lack()}; {_ON_PURPOSE}")


def has_kernels(built_for: Iterable[str], capability: tuple[int, int]) -> bool:
    """Return whether a build of torch has kernels for a GPU.

    Kernels (`sm_80`) run on GPUs whose compute capability has the same major number and the same or a higher minor
    number (8.6); PTX (`compute_80`) also runs on all later GPUs. With the suffix `a` (`sm_90a`), both run only on
    exactly that capability; with `f`, on the same major number and the same or a higher minor number.

    Args:
        built_for: architectures, as `torch.cuda.get_arch_list` names them.
        capability: compute capability of the GPU, as `torch.cuda.get_device_capability` returns it.
    """
    for name in built_for:
        found = _ARCHITECTURE.fullmatch(name)
        if found is None:
            continue
        kind, suffix, built = found[1], found[4], (int(found[2]), int(found[3]))
        if suffix == "a":
            fits = built == capability
        elif kind == "sm" or suffix == "f":
            fits = built[0] == capability[0] and built[1] <= capability[1]
        else:
            fits = built <= capability
        if fits:
            return True
    return False


def _read_choice() -> str:
    choice = os.environ.get(CHOICE, "auto") or "auto"
    if choice not in _CHOICES:
        raise DeviceError(f"{CHOICE}: expected {', '.join(_CHOICES)}, received {choice!r}")
    return choice


def _describe_allocation() -> str | None:
    """Describe what allocated a GPU to this process; None if nothing did."""
    visible = os.environ.get(VISIBLE)
    for variable in _SLURM:
        if given := os.environ.get(variable):
            return f"SLURM allocated {len(given.split(','))} to this job: {variable}={given}"
    on_node = os.environ.get("SLURM_GPUS_ON_NODE", "0")
    if on_node.isdecimal() and int(on_node):
        return f"SLURM allocated {on_node} to this job"
    if visible is not None:
        return None if visible.strip() in HIDING else f"{VISIBLE}={visible}"
    if "SLURM_JOB_ID" in os.environ:  # a job without a GPU on a node that has some
        return None
    # A container without a GPU may also have the driver's files, but not its programs.
    if _DRIVER.is_dir() and any(_DRIVER.iterdir()) and shutil.which("nvidia-smi"):
        return "NVIDIA's driver has one"
    return None


def _describe_lack() -> str:
    """Describe why torch finds no GPU, and what to install."""
    if torch.version.cuda is None:
        build = "CPU build" if torch.version.hip is None else "ROCm build"
        return f"a {build} of torch {torch.__version__}: install a CUDA build, `{_PYPI}`, or on V100 `{_CU126}`"
    return (
        f"torch {torch.__version__}, which finds none: `nvidia-smi` shows whether the node has one, and whether its "
        f"driver is new enough for CUDA {torch.version.cuda}; if not, install a build for an older CUDA, `{_CU126}`"
    )


def _require_kernels(count: int) -> None:
    """Raise DeviceError unless torch has kernels for the first `count` GPUs."""
    if torch.version.cuda is None:
        return
    built_for = torch.cuda.get_arch_list()
    for index in range(count):
        capability = torch.cuda.get_device_capability(index)
        if built_for and not has_kernels(built_for, capability):  # an empty list: not known
            install = _CU126 if capability < (7, 5) else f"{_PYPI} --upgrade"
            raise DeviceError(
                f"device: expected a build of torch with kernels for {torch.cuda.get_device_name(index)} "
                f"(sm_{capability[0]}{capability[1]}), received torch {torch.__version__} with "
                f"{', '.join(built_for)}: install one that has them, `{install}`; {_ON_PURPOSE}"
            )
