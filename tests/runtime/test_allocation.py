"""A job that is allocated a GPU and cannot use it fails at once."""

from __future__ import annotations

import pytest
import torch

import nfpi.runtime.allocation
from nfpi.runtime.allocation import DeviceError
from nfpi.runtime.device import count_visible_gpus, make_device

ALLOCATED = [
    ({"SLURM_JOB_ID": "1", "SLURM_JOB_GPUS": "0,1"}, "SLURM_JOB_GPUS=0,1"),
    ({"SLURM_JOB_ID": "1", "SLURM_STEP_GPUS": "3"}, "SLURM_STEP_GPUS=3"),
    ({"SLURM_JOB_ID": "1", "SLURM_GPUS_ON_NODE": "1"}, "SLURM_GPUS_ON_NODE=1"),
    ({"CUDA_VISIBLE_DEVICES": "0"}, "CUDA_VISIBLE_DEVICES=0"),
    ({"CUDA_VISIBLE_DEVICES": "GPU-8f6b4e1a"}, "CUDA_VISIBLE_DEVICES=GPU-8f6b4e1a"),
    ({"NFPI_DEVICE": "cuda"}, "NFPI_DEVICE=cuda"),
]
NOT_ALLOCATED = [
    {},
    {"CUDA_VISIBLE_DEVICES": ""},
    {"CUDA_VISIBLE_DEVICES": "-1"},
    {"SLURM_JOB_ID": "1", "CUDA_VISIBLE_DEVICES": "NoDevFiles"},
    {"SLURM_JOB_ID": "1", "SLURM_GPUS_ON_NODE": "0"},
    {"NFPI_DEVICE": "auto"},
]


@pytest.fixture(autouse=True)
def no_gpu_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """As on a laptop: nothing names a GPU, no driver, and a CPU build of torch."""
    for name in ("NFPI_DEVICE", *(name for environment, _ in ALLOCATED for name in environment)):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(nfpi.runtime.allocation, "_DRIVER", tmp_path / "driver")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch, "__version__", "2.13.0+cpu")


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch):
    """A card that torch finds; `error`: what a computation on it raises."""

    def put(error: Exception | None = None) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda index=0: "A card")
        monkeypatch.setattr(torch.version, "cuda", "13.0")

        def compute(size: int, *, device: torch.device) -> torch.Tensor:
            if error is not None:
                raise error
            return torch.zeros(size)

        monkeypatch.setattr(torch, "ones", compute)

    return put


@pytest.mark.parametrize(("environment", "said"), ALLOCATED)
def test_an_allocated_gpu_and_a_cpu_build_is_an_error_in_one_line(monkeypatch, environment, said):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DeviceError, match=rf"^device: .*\({said}\).*2\.13\.0\+cpu.*cu126") as caught:
        make_device()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("choice", ["auto", "cpu"])
def test_a_gpu_that_is_named_and_missing_is_an_error_in_one_line(monkeypatch, choice):
    monkeypatch.setenv("NFPI_DEVICE", choice)
    with pytest.raises(DeviceError, match=r"^device: expected a GPU for 'cuda:1', received .*2\.13\.0\+cpu") as caught:
        make_device(device=torch.device("cuda:1"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("environment", NOT_ALLOCATED)
def test_without_an_allocated_gpu_the_cpu_computes(monkeypatch, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert make_device().device == torch.device("cpu")


@pytest.mark.parametrize("environment", [environment for environment, _ in ALLOCATED])
def test_the_cpu_may_be_chosen_on_purpose(monkeypatch, card, environment):
    for name, value in (environment | {"NFPI_DEVICE": "cpu"}).items():
        monkeypatch.setenv(name, value)
    assert make_device(devices=2).device == torch.device("cpu")
    card()
    assert count_visible_gpus() == 0
    assert make_device("bf16-mixed", devices=2).device == torch.device("cpu")


def test_another_choice_is_refused(monkeypatch):
    monkeypatch.setenv("NFPI_DEVICE", "gpu")
    with pytest.raises(DeviceError, match=r"NFPI_DEVICE.*'gpu'"):
        make_device()


def test_a_driver_with_a_gpu_and_a_cpu_build_is_an_error(monkeypatch, tmp_path):
    (tmp_path / "driver/0000:01:00.0").mkdir(parents=True)
    monkeypatch.setattr(nfpi.runtime.allocation.shutil, "which", lambda name: None)
    assert make_device().device == torch.device("cpu")  # a container without a GPU, on a machine with one
    monkeypatch.setattr(nfpi.runtime.allocation.shutil, "which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(DeviceError, match="driver"):
        make_device()
    monkeypatch.setenv("SLURM_JOB_ID", "1")  # a job without a GPU, on a node with some
    assert make_device().device == torch.device("cpu")


def test_a_cuda_build_that_finds_no_gpu_names_its_cuda(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", "1")
    with pytest.raises(DeviceError, match=r"CUDA 13\.0"):
        make_device()


def test_a_card_that_cannot_compute_is_an_error(card):
    card(RuntimeError("CUDA error: no kernel image is available for execution on the device\nCompile with"))
    with pytest.raises(DeviceError, match=r"A card, .*no kernel image .*cu126") as caught:
        make_device()
    assert "\n" not in str(caught.value)
    card(torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(torch.OutOfMemoryError):
        make_device()
    card()
    assert make_device().device == torch.device("cuda", 0)
