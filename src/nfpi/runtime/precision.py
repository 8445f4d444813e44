"""Choice of the training precision, and computations in float32 whatever the caller has set in torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

_KINDS = ("cpu", "cuda", "mps")
_LOWEST_CAPABILITY = 8
"""lowest major compute capability of NVIDIA GPUs (A100) with bfloat16 and TF32"""


def choose_precision(wanted: str, device: torch.device) -> str:
    """Choose the training precision on a device.

    `auto` is bf16-mixed on a CUDA GPU or a CPU (AMX or AVX512_BF16) that multiplies bfloat16 in hardware, and float32
    on all other devices. It never means TF32, as NVIDIA GPUs with TF32 (compute capability 8.0 and above) also have
    bfloat16.

    Args:
        wanted: `auto`, `32-true`, `tf32` or `bf16-mixed`.
        device: device of the training.

    Raises:
        ValueError: the device does not support this precision; the message lists those that it supports.
    """
    if wanted == "32-true":
        return wanted
    usable = _list_precisions(device)
    if wanted == "auto":
        is_fast = "bf16-mixed" in usable and (device.type == "cuda" or (device.type == "cpu" and _has_bfloat16()))
        return "bf16-mixed" if is_fast else "32-true"
    if wanted not in usable:
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()
        raise ValueError(
            f"precision: expected auto or one that this device ({name}) supports, {', '.join(usable)}; "
            f"received {wanted}"
        )
    return wanted


def _list_precisions(device: torch.device) -> list[str]:
    """Return the precisions that a device supports at full speed; for CPUs, also bf16-mixed."""
    if device.type != "cuda":
        return ["32-true", "bf16-mixed"]
    # not torch.cuda.is_bf16_supported, which asks the current device
    is_new = torch.cuda.get_device_capability(device)[0] >= _LOWEST_CAPABILITY
    return ["32-true", "tf32", "bf16-mixed"] if is_new else ["32-true"]


def _has_bfloat16() -> bool:
    """Return whether the CPU multiplies in bfloat16; versions of torch that cannot tell say that it does not."""
    ask = getattr(torch.cpu, "get_capabilities", None)
    return ask is not None and any(ask().get(name) for name in ("amx_bf16", "avx512_bf16"))


@contextmanager
def full_precision() -> Iterator[None]:
    """Compute in float32 without autocast or TF32, regardless of the training precision. Also a decorator.

    Predictions, bits/dim, latents and images of a flow are computed this way: bfloat16 in the coupling networks would
    change the inverse of a latent by up to a tenth of the pixel range.
    """
    mixed = [kind for kind in _KINDS if torch.is_autocast_enabled(kind)]
    with _set_float32_precision(tf32_convolutions=False, products="highest"):
        for kind in mixed:
            torch.set_autocast_enabled(kind, False)
        try:
            yield
        finally:
            for kind in mixed:
                torch.set_autocast_enabled(kind, True)


@contextmanager
def standard_defaults() -> Iterator[None]:
    """Make tensors in float32 on the CPU within the context, where no dtype or device is given. Also a decorator.

    A caller may have set others by :func:`torch.set_default_dtype` or :func:`torch.set_default_device`. The default
    dtype is shared by all threads, so a context in one thread may end another's early; the default device belongs to
    the current thread.
    """
    dtype = torch.get_default_dtype()
    if dtype != torch.float32:
        torch.set_default_dtype(torch.float32)
    try:
        with cpu_by_default():
            yield
    finally:
        if dtype != torch.float32:
            torch.set_default_dtype(dtype)


@contextmanager
def cpu_by_default() -> Iterator[None]:
    """Make tensors on the CPU within the context, where no device is given."""
    # the context of a device slows every operation down, so it is entered only where it changes something
    with nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu"):
        yield


@contextmanager
def tensor_float32() -> Iterator[None]:
    """Allow TF32 in float32 convolutions on GPUs that support it; the precision of matrix products does not change.

    The 1×1 convolutions of a flow are computed as matrix products, so they stay in full float32, torch's default.
    """
    with _set_float32_precision(tf32_convolutions=True):
        yield


@contextmanager
def _set_float32_precision(*, tf32_convolutions: bool, products: str | None = None) -> Iterator[None]:
    """Set the precision of float32 convolutions, and that of matrix products unless `products` is None.

    torch has an older and a newer interface for it. Where they contradict each other, reading the older one raises an
    error. Both are set here, since the newer one can also set several operations at once, which overrides the older
    one. After the block, an operation that had such a common precision has the same value as its own setting.
    """
    before: tuple[bool, str] | None
    try:
        before = (torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision())
    except RuntimeError:
        before = None
    if before is not None:
        torch.backends.cudnn.allow_tf32 = tf32_convolutions
        if products is not None:
            torch.set_float32_matmul_precision(products)
    changed: list[tuple[Any, str]] = []
    for backend, value in _list_newer_settings(tf32_convolutions, with_products=products is not None):
        if before is None or backend.fp32_precision not in (value, "none"):
            changed.append((backend, backend.fp32_precision))
            backend.fp32_precision = value
    try:
        yield
    finally:
        for backend, value in changed:
            backend.fp32_precision = value
        if before is not None:
            torch.backends.cudnn.allow_tf32 = before[0]
            if products is not None:
                torch.set_float32_matmul_precision(before[1])


def _list_newer_settings(tf32_convolutions: bool, *, with_products: bool) -> list[tuple[Any, str]]:
    """Return the operations and their precisions for torch's newer interface; empty if torch has none."""
    kinds: Any = torch.backends  # the newer interface has no type hints
    if not hasattr(kinds, "fp32_precision"):
        return []
    found = [(kinds.cudnn.conv, "tf32" if tf32_convolutions else "ieee")]
    if with_products:
        found += [(kind, "ieee") for kind in (kinds.cuda.matmul, kinds.mkldnn.matmul, kinds.mkldnn.conv)]
    return found


def _are_convolutions_tf32() -> bool:
    """Return whether float32 convolutions may be computed in TF32 on a GPU."""
    try:
        return bool(torch.backends.cudnn.allow_tf32)
    except RuntimeError:  # set by torch's newer interface
        kinds: Any = torch.backends
        return bool(kinds.cudnn.conv.fp32_precision == "tf32")


def choose_convolution_format(device: torch.device) -> torch.memory_format:
    """Return the fastest memory format for convolutions on a device, in the current precision.

    CPU libraries and the tensor cores of GPUs (fp16, bf16, TF32) prefer channels last. GPUs in full float32 prefer
    channels first: on a V100, channels last takes 1.6 times as long.
    """
    if device.type == "cpu" or torch.is_autocast_enabled(device.type):
        return torch.channels_last
    rounded = device.type == "cuda" and _are_convolutions_tf32()
    return torch.channels_last if rounded else torch.contiguous_format
