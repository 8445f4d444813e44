"""Devices, and that they need nothing but torch."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

import nfpi.runtime.device
from nfpi.runtime.device import Device, make_device

HEAVY = (
    *("lightning_fabric", "timm", "torchvision", "sklearn", "pandas", "scipy.stats"),
    *("torch._inductor.config", "torch._dynamo"),
)


@pytest.fixture
def without_gpus(monkeypatch):
    monkeypatch.setattr(nfpi.runtime.device, "count_visible_gpus", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


def model(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ELU(), nn.Flatten(), nn.Linear(4 * 36, 3))
    return module, torch.optim.Adamax(module.parameters(), lr=0.01)


def test_one_device_in_float32_is_a_plain_one(without_gpus):
    device = make_device()
    assert (device.device, device.processes.count) == (torch.device("cpu"), 1)
    with device.launch_processes():
        assert device.processes.first
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.is_deterministic_algorithms_warn_only_enabled()


def test_a_step_is_torchs_own(without_gpus):
    device, found = make_device(), []
    for plain in (True, False):
        module, optimizer = model(0)
        generator = torch.Generator().manual_seed(1)
        for _ in range(5):
            images = torch.randn(4, 2, 8, 8, generator=generator)
            optimizer.zero_grad()
            if plain:
                module(images).square().mean().backward()
                nn.utils.clip_grad_norm_(module.parameters(), 0.1)
                optimizer.step()
            else:
                device.backward(device.forward(device.setup(module), images).square().mean())
                device.step(optimizer, 0.1)
        found.append([parameter.detach() for parameter in module.parameters()])
    assert all(map(torch.equal, *found))


def test_a_gradient_that_is_not_finite_is_left_for_the_loss_to_tell(without_gpus):
    device, (module, optimizer) = make_device(), model(0)
    device.backward(module(torch.full((1, 2, 8, 8), torch.nan)).sum())
    device.step(optimizer, 1.0)


@pytest.mark.parametrize(("pixels", "width", "threads"), [(1, 64, 1), (2**16, 63, 1), (2**16, 64, 2), (2**16, 512, 4)])
def test_a_small_network_has_few_threads(pixels, width, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        device = Device(torch.device("cpu"))
        with device.limit_threads(nn.Conv2d(3, width, 1), pixels):
            assert torch.get_num_threads() == device.threads == threads
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("given", "found"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_threads_wait_without_spinning_unless_the_user_wishes_it(given, found):
    """OpenMP reports its settings when torch loads it, so that the policy was set before."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    done = subprocess.run(
        [sys.executable, "-c", "import nfpi.training.flow"],
        env=inherited | {"OMP_DISPLAY_ENV": "TRUE"} | given,
        capture_output=True,
        text=True,
        check=True,
    )
    if "OPENMP DISPLAY ENVIRONMENT BEGIN" not in done.stderr:
        pytest.skip("this OpenMP does not report its settings")
    assert f"OMP_WAIT_POLICY = '{found}'" in done.stderr


def test_the_training_loop_imports_nothing_heavy():
    """A stage reaches its own work soon after torch is imported."""
    program = f"""
import sys
import nfpi.training.flow
from nfpi.runtime.device import make_device
make_device()
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
