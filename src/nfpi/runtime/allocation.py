"""Check that torch can use the GPU allocated to a job; otherwise the job fails instead of running on the CPU.

torch is imported by the functions that need it, since the workflow reads the names of the variables.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import torch

CHOICE: Final = "NFPI_DEVICE"
"""`auto` (default), `cpu` (even if a GPU is allocated), `cuda` (a GPU, or an error)."""
VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
HIDING = frozenset({"", "-1", "NoDevFiles", "none", "void"})
"""Values of :data:`VISIBLE` that hide all GPUs; NoDevFiles is SLURM's."""
_CHOICES = ("auto", "cpu", "cuda")
_SLURM = ("SLURM_JOB_GPUS", "SLURM_STEP_GPUS")
_DRIVER = Path("/proc/driver/nvidia/gpus")

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


def require_allocated_gpu(named: torch.device | None = None) -> None:
    """Check that torch can use the GPU that a caller named or that is allocated to this process; no-op without such.

    A GPU counts as allocated if SLURM or CUDA_VISIBLE_DEVICES names one, if NVIDIA's driver finds one outside SLURM, or
    if `NFPI_DEVICE=cuda` requires one.

    Raises:
        DeviceError: torch finds no GPU, and the message says what to install; or the value of `NFPI_DEVICE` is invalid.
    """
    import torch

    choice = _read_choice()
    if torch.cuda.is_available() or (choice == "cpu" and named is None):
        return
    if named is not None:
        raise DeviceError(f"device: expected a GPU for '{named}', received {_describe_lack()}")
    allocation = _describe_allocation() or (f"{CHOICE}=cuda" if choice == "cuda" else None)
    if allocation is not None:
        raise DeviceError(f"device: expected a GPU ({allocation}), received {_describe_lack()}; {_ON_PURPOSE}")


def require_kernels(device: torch.device) -> None:
    """Check by a trivial computation that this build of torch has kernels for a GPU.

    Raises:
        DeviceError: the computation failed; the message says what to install.
    """
    import torch

    try:
        torch.ones(1, device=device).add_(1)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        install = f"{_PYPI} --upgrade` or, for V100 and older GPUs, `{_CU126}"
        raise DeviceError(
            f"device: expected torch {torch.__version__} to compute on {torch.cuda.get_device_name(device)}, received "
            f"an error ({reason}): install a build with kernels for this GPU, `{install}`; {_ON_PURPOSE}"
        ) from None


def _read_choice() -> str:
    choice = os.environ.get(CHOICE, "auto") or "auto"
    if choice not in _CHOICES:
        raise DeviceError(f"{CHOICE}: expected {', '.join(_CHOICES)}, received {choice!r}")
    return choice


def _describe_allocation() -> str | None:
    """Describe what allocated a GPU to this process; None if nothing did."""
    for variable in _SLURM:
        if given := os.environ.get(variable):
            return f"{variable}={given}"
    if (on_node := os.environ.get("SLURM_GPUS_ON_NODE", "")) not in ("", "0"):
        return f"SLURM_GPUS_ON_NODE={on_node}"
    if (visible := os.environ.get(VISIBLE)) is not None:
        return None if visible.strip() in HIDING else f"{VISIBLE}={visible}"
    if "SLURM_JOB_ID" in os.environ:  # a job without a GPU on a node that has some
        return None
    # A container without a GPU may also have the driver's files, but not its programs.
    if _DRIVER.is_dir() and any(_DRIVER.iterdir()) and shutil.which("nvidia-smi"):
        return "NVIDIA's driver has one"
    return None


def _describe_lack() -> str:
    """Describe why torch finds no GPU, and what to install."""
    import torch

    if torch.version.cuda is None:
        return f"a CPU build of torch {torch.__version__}: install a CUDA build, `{_PYPI}`, or on V100 `{_CU126}`"
    return (
        f"torch {torch.__version__}, which finds none: `nvidia-smi` shows whether the node has one, and whether its "
        f"driver is new enough for CUDA {torch.version.cuda}; if not, install a build for an older CUDA, `{_CU126}`"
    )
