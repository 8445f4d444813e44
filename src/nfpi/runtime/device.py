"""The device of a stage: its choice, the operations that a training needs of it, and whether it compiles for it."""

from __future__ import annotations

import ctypes
import logging
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nfpi.runtime.allocation import require_allocated_gpu, require_kernels, uses_cpu_on_purpose
from nfpi.runtime.precision import choose_precision, tensor_float32
from nfpi.runtime.processes import Processes, connected, read_rank_and_port

logger = logging.getLogger(__name__)

_BACKEND = "inductor"
_NUMBERS_PER_THREAD = 2**21
"""numbers for each thread of a CPU, see :meth:`Device.limit_threads`; with fewer, threads wait more than they help"""
_LOWEST_FOR_TRITON = 8
"""lowest major compute capability of NVIDIA GPUs (A100) that Triton supports"""
# constants of <malloc.h>
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


class Device:
    """The device of this process, and the operations of a training step that depend on its precision and processes.

    Args:
        device: device of this process.
        precision: precision of training steps; one that the device supports.
        processes: processes that train together; None: this one alone.

    Attributes:
        device, precision, processes: as given.
        threads: threads of a training's steps on a CPU, see :meth:`limit_threads`; else None.
    """

    def __init__(self, device: torch.device, precision: str = "32-true", processes: Processes | None = None) -> None:
        self.device, self.precision = device, precision
        self.processes = processes or Processes(device=device)
        self.threads: int | None = None

    def launch_processes(self) -> AbstractContextManager[None]:
        """Run the block in all processes that train together; the first one starts the others."""
        return nullcontext() if self.processes.count == 1 else connected(self.processes)

    def setup(self, module: nn.Module) -> nn.Module:
        """Let the gradients of a module on this device be averaged over the processes; return the module to call."""
        if self.processes.count == 1:
            return module
        return DistributedDataParallel(module, [self.device] if self.device.type == "cuda" else None)

    def forward(self, module: nn.Module, *inputs: Any) -> Tensor:
        """Call a module in the precision of training steps; return its result in float32.

        Unlike the weights, the inputs are not rounded. Images would lose their dequantisation noise: grey levels are
        2⁻⁷ apart, and bfloat16 numbers near 1 are 2⁻⁸ apart.
        """
        with self._step_precision():
            result: Tensor = module(*inputs)
        return result.float()

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients of a scalar loss, and average them over the processes."""
        with tensor_float32() if self.precision == "tf32" else nullcontext():
            loss.backward()

    def step(self, optimizer: torch.optim.Optimizer, max_norm: float = 0.0) -> None:
        """Make a step of the optimizer, with gradients scaled down to norm `max_norm` if theirs is larger; 0: as is."""
        if max_norm:
            nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], max_norm)
        optimizer.step()

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

    @contextmanager
    def limit_threads(self, network: nn.Module, pixels: int) -> Iterator[None]:
        """On a CPU, compute the block with as many threads as a network keeps busy, but no more than before.

        Args:
            network: the network; its widest layer counts, of which every pixel has an output.
            pixels: number of pixels of a batch, B·H·W.
        """
        before = torch.get_num_threads()
        if self.device.type == "cpu":
            widest = max((len(weight) for weight in network.parameters() if weight.dim() > 1), default=1)
            self.threads = max(1, min(before, widest * pixels // _NUMBERS_PER_THREAD))
            torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def _step_precision(self) -> AbstractContextManager[Any]:
        if self.precision == "tf32":
            return tensor_float32()
        if self.precision == "32-true":
            return nullcontext()
        # without a cache of rounded weights: if the caller is inside a block of autocast, it would outlive the step
        return torch.autocast(self.device.type, torch.bfloat16, cache_enabled=False)


def make_device(precision: str = "32-true", devices: int = 1, device: torch.device | None = None) -> Device:
    """Choose the best device, or up to `devices` GPUs if there are several, and prepare this process for it.

    The precision applies to training steps (:meth:`Device.forward`). All else is float32
    without TF32, which would break the inverse of a flow. On a CPU, float32 runs are reproducible bit for bit.

    Args:
        precision: `auto`, `32-true`, `tf32` or `bf16-mixed`; see
            :func:`nfpi.runtime.precision.choose_precision`. :attr:`Device.precision` is never `auto`.
        devices: largest number of GPUs, with one process each, see :meth:`Device.launch_processes`.
        device: the device, if it is not to be chosen.

    Raises:
        DeviceError: a GPU is allocated to this process, and torch cannot use it; or `NFPI_DEVICE` has another value
            than those it may have.
        ValueError: the device does not compute in this precision.
    """
    if device is None or device.type == "cuda":
        require_allocated_gpu(device)
    count = max(1, min(devices, count_visible_gpus())) if device is None else 1
    rank, port = read_rank_and_port() if count > 1 else (0, 0)
    if device is None:
        device = torch.device("cpu") if _choose_kind() == "cpu" else torch.device(_choose_kind(), rank)
        if device.type == "cuda":
            torch.cuda.set_device(device)
    chosen = choose_precision(precision, device)
    if device.type == "cuda":
        require_kernels(device)
    if precision == "auto":
        logger.info("precision: %s on %s", chosen, describe_device(device))
    prepare_process(device)
    return Device(device, chosen, Processes(rank, count, device, port))


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


def describe_device(device: torch.device) -> str:
    """Name a device, with the number of threads of a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return f"{_read_processor_name()} ({torch.get_num_threads()} threads)"
    return device.type


def describe_platform() -> str:
    """Name what the last bits of results depend on, on a CPU: its model, and the version of torch."""
    return f"{_read_processor_name()} with torch {torch.__version__}"


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


def choose_compiler(wanted: bool | Literal["auto"], device: torch.device) -> str | None:
    """Return the backend of :func:`torch.compile` for a training on a device; None: it is not compiled.

    Args:
        wanted: `auto` compiles on GPUs that Triton supports, if the compiler works.
        device: device of the training.

    Raises:
        ValueError: `wanted` is True, but the compiler does not work.
    """
    if not wanted or (wanted == "auto" and not _has_triton(device)):
        return None
    fault = _find_compiler_fault(device)
    if fault is None:
        logger.info("training.compile: %s on %s", _BACKEND, device.type)
        return _BACKEND
    if wanted != "auto":
        needs = "Triton and a C compiler" if device.type == "cuda" else "a C++ compiler (g++ or clang++)"
        raise ValueError(f"training.compile: expected {needs}, received an error ({fault})")
    logger.warning("training is not compiled: %s", fault)
    return None


def _has_triton(device: torch.device) -> bool:
    if device.type != "cuda" or find_spec("triton") is None:
        return False
    return torch.cuda.get_device_capability(device)[0] >= _LOWEST_FOR_TRITON


def _find_compiler_fault(device: torch.device) -> str | None:
    """Return why a trivial function cannot be compiled; None: it can.

    The backend needs a C++ compiler for CPUs, and Triton with a C compiler for GPUs.
    """
    try:
        torch.compile(lambda x: x.sin() + 1, backend=_BACKEND)(torch.ones(16, device=device))
    except Exception as error:
        return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return None
