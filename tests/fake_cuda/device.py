"""A CUDA device that computes nothing, for a process that has not imported torch yet.

The device exists for fake tensors only, which have a shape, a type and a device, and no values. So the code paths of
GPUs run on any machine, which reveals tensors on different devices and places where the host waits for the device.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from pathlib import Path


def install(hooks: Path) -> None:
    """Make torch report one CUDA device.

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
    _patch_python()


def _patch_python() -> None:
    """Patch the parts of torch that check in Python whether there is a GPU."""
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

    def convert_to_numpy(tensor: torch.Tensor, *args: object, **kwargs: object) -> np.ndarray:
        if not isinstance(tensor, FakeTensor):
            return numpy(tensor, *args, **kwargs)  # type: ignore[arg-type]
        assert tensor.device.type == "cpu", "NumPy expected a tensor on the CPU"
        return np.zeros(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))

    torch.Tensor.numpy = convert_to_numpy  # type: ignore[method-assign, assignment]


class _Event:
    """A place in the queue of the device, which is always empty."""

    def record(self, *_: object) -> None:
        """Nothing is queued."""

    def synchronize(self) -> None:
        """Nothing is waited for."""
