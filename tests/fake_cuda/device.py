"""A CUDA device that computes nothing, for a process that has not imported torch yet.

The device exists for fake tensors only, which have a shape, a type and a device, and no values. So code paths of GPUs
run on any machine, and show tensors that are on different devices and places where the host waits for the device.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from pathlib import Path


def install(hooks: Path) -> None:
    """Let torch believe in one CUDA device.

    Args:
        hooks: the shared library of hooks.cpp.
    """
    assert "torch" not in sys.modules, "torch looks for devices when it is imported: import it later"
    found = importlib.util.find_spec("torch")
    assert found is not None
    assert found.origin is not None
    libraries = Path(found.origin).parent / "lib"
    for library in (libraries / "libc10.so", libraries / "libtorch_cpu.so", hooks):
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    _persuade_python()


def _persuade_python() -> None:
    """Parts of torch that are written in Python and ask for themselves whether there is a GPU."""
    import numpy as np
    import torch
    import torch.cuda.amp.common
    from torch._subclasses.fake_tensor import FakeTensor
    from torch.optim.optimizer import _foreach_supported_types

    torch.cuda.amp.common.amp_definitely_not_available = lambda: False
    torch.cuda.is_bf16_supported = lambda *_, **__: True  # type: ignore[assignment]
    torch.cuda.Event = _Event  # type: ignore[misc, assignment]
    _foreach_supported_types.append(FakeTensor)
    numpy = torch.Tensor.numpy

    def zeros_of_fake(tensor: torch.Tensor, *args: object, **kwargs: object) -> np.ndarray:
        if not isinstance(tensor, FakeTensor):
            return numpy(tensor, *args, **kwargs)  # type: ignore[arg-type]
        assert tensor.device.type == "cpu", "NumPy expected a tensor on the CPU"
        return np.zeros(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))

    torch.Tensor.numpy = zeros_of_fake  # type: ignore[method-assign, assignment]


class _Event:
    """A place in the queue of the device, which is always empty."""

    def record(self, *_: object) -> None:
        """Nothing is queued."""

    def synchronize(self) -> None:
        """Nothing is waited for."""
