"""Which precision a device trains in, what has it, and what has not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nfpi.runtime.device import Device
from nfpi.runtime.precision import (
    choose_convolution_format,
    choose_precision,
    cpu_by_default,
    full_precision,
    standard_defaults,
    tensor_float32,
)

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
VOLTA, TURING, AMPERE, HOPPER = (7, 0), (7, 5), (8, 0), (9, 0)
ALL = {"32-true", "tf32", "bf16-mixed"}


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Callable[[tuple[int, int]], None]:
    """A GPU of a compute capability."""

    def put(capability: tuple[int, int]) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "A card")

    return put


@pytest.fixture
def restored() -> Iterator[None]:
    """What the whole process computes in is as it was after the test."""
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = before[0], before[2]
    torch.set_float32_matmul_precision(before[1])


# ---- the choice ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capability", "best", "missing"),
    [
        (VOLTA, "32-true", {"tf32", "bf16-mixed"}),
        (TURING, "32-true", {"tf32", "bf16-mixed"}),
        (AMPERE, "bf16-mixed", set()),
        (HOPPER, "bf16-mixed", set()),
    ],
)
def test_a_gpu_trains_in_what_it_has_in_hardware(card, capability, best, missing):
    card(capability)
    assert choose_precision("auto", CUDA) == best
    for precision in ALL - missing:
        assert choose_precision(precision, CUDA) == precision
    for precision in missing:
        with pytest.raises(ValueError, match=rf"^precision: .*A card.*32-true.*{precision}$"):
            choose_precision(precision, CUDA)


@pytest.mark.parametrize(
    ("capabilities", "best"),
    [({"amx_bf16": True}, "bf16-mixed"), ({"avx512_bf16": True, "amx_bf16": False}, "bf16-mixed"), ({}, "32-true")],
)
def test_a_cpu_trains_in_bfloat16_if_asked_or_if_it_has_it(monkeypatch, capabilities, best):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert choose_precision("auto", CPU) == best
    assert choose_precision("auto", torch.device("mps")) == choose_precision("32-true", CPU) == "32-true"
    assert choose_precision("bf16-mixed", CPU) == "bf16-mixed"
    with pytest.raises(ValueError, match=r"^precision: .*CPU.*32-true, bf16-mixed.*tf32$"):
        choose_precision("tf32", CPU)


# ---- steps of a training, and all else ----------------------------------------------------------------------


class Recorder(nn.Module):
    """A convolution that notes in which precision it is computed, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 1, 3)
        self.seen: list[tuple[torch.dtype, torch.dtype, bool]] = []

    def forward(self, x: Tensor) -> Tensor:
        """Note the dtypes that come in and go out, and whether TF32 is allowed."""
        y: Tensor = self.convolution(x)
        self.seen.append((x.dtype, y.dtype, torch.backends.cudnn.allow_tf32))
        if y.requires_grad:
            y.register_hook(lambda _: self.seen.append((x.dtype, y.dtype, torch.backends.cudnn.allow_tf32)))
        return y


@pytest.mark.parametrize(
    ("precision", "inside", "rounded"),
    [
        ("32-true", torch.float32, False),
        ("tf32", torch.float32, True),
        ("bf16-mixed", torch.bfloat16, False),
    ],
)
def test_only_forward_and_backward_of_a_step_have_the_precision(restored, precision, inside, rounded):
    torch.backends.cudnn.allow_tf32 = False
    module = Recorder()
    device = Device(CPU, precision)
    images = torch.rand(2, 1, 4, 4)
    loss = device.forward(module, images)
    assert loss.dtype == torch.float32
    device.backward(loss.square().mean())
    # the images keep their dequantisation noise, which bfloat16 would round away
    assert module.seen == 2 * [(torch.float32, inside, rounded)]
    module.seen.clear()
    with torch.no_grad():
        module(images)  # as statistics and evaluations call it
    assert module.seen == [(torch.float32, torch.float32, False)]


# ---- float32 whatever the caller computes in ----------------------------------------------------------------


def test_full_precision_ends_as_it_began(restored):
    torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("medium")
    x, kernel = torch.rand(1, 1, 4, 4), torch.rand(1, 1, 3, 3)

    @full_precision()
    def convolve() -> Tensor:
        assert not torch.backends.cudnn.allow_tf32
        assert torch.get_float32_matmul_precision() == "highest"
        return F.conv2d(x, kernel)

    with torch.autocast("cpu", torch.bfloat16):
        assert F.conv2d(x, kernel).dtype == torch.bfloat16
        assert convolve().dtype == torch.float32
        with pytest.raises(RuntimeError, match="stop"), full_precision():
            raise RuntimeError("stop")
        assert F.conv2d(x, kernel).dtype == torch.bfloat16
    assert torch.backends.cudnn.allow_tf32
    assert torch.get_float32_matmul_precision() == "medium"


_NEWER_INTERFACE = """
import torch
from nfpi.runtime.precision import choose_convolution_format, full_precision, tensor_float32
{first}
{precisions}
print(torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision)
with full_precision():
    print(torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision)
with tensor_float32():
    print(torch.backends.cudnn.conv.fp32_precision, choose_convolution_format(torch.device("cuda")))
print(torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision)
"""


_ONE_BY_ONE = 'torch.backends.cudnn.conv.fp32_precision = torch.backends.cuda.matmul.fp32_precision = "tf32"'


@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="torch has no newer interface")
@pytest.mark.parametrize("first", ["", "with full_precision(): pass"])
@pytest.mark.parametrize("precisions", ['torch.backends.fp32_precision = "tf32"', _ONE_BY_ONE])
def test_callers_may_set_precisions_by_torchs_newer_interface(first, precisions):
    """In a process of its own, as torch refuses the older interface from then on."""
    code = _NEWER_INTERFACE.format(first=first, precisions=precisions)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    before, full, tf32, after = done.stdout.splitlines()
    assert (full, tf32) == ("ieee ieee", "tf32 torch.channels_last")
    assert before == after
    assert before.startswith("tf32")


# ---- new tensors ------------------------------------------------------------------------------------------


@pytest.fixture
def other_defaults():
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)


@pytest.mark.usefixtures("other_defaults")
def test_new_tensors_are_float32_on_the_cpu():
    with standard_defaults():
        inside = torch.zeros(1)
    outside = torch.zeros(1)
    assert (inside.dtype, inside.device.type) == (torch.float32, "cpu")
    assert (outside.dtype, outside.device.type) == (torch.float64, "meta")
    with cpu_by_default():
        assert torch.zeros(1).device.type == "cpu"
    with pytest.raises(ZeroDivisionError), standard_defaults():
        _ = 1 / 0
    assert torch.get_default_dtype() == torch.float64
    assert torch.zeros(1).device.type == "meta"


# ---- the order of an image's numbers ------------------------------------------------------------------------


def test_channels_are_last_on_cpus_and_on_tensor_cores(restored, monkeypatch):
    torch.backends.cudnn.allow_tf32 = False
    assert choose_convolution_format(CPU) == torch.channels_last
    assert choose_convolution_format(CUDA) == torch.contiguous_format
    with tensor_float32():
        assert choose_convolution_format(CUDA) == torch.channels_last
        with full_precision():
            assert choose_convolution_format(CUDA) == torch.contiguous_format
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: kind == "cuda")
    assert choose_convolution_format(CUDA) == torch.channels_last
