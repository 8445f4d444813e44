"""The device a stage runs on, chosen by itself: CUDA, MPS, else the CPU."""

from __future__ import annotations

import platform
from pathlib import Path

import torch
from lightning_fabric import Fabric


def make_fabric(precision: str = "32-true") -> Fabric:
    """One device of the best kind there is, with this precision."""
    return Fabric(accelerator="auto", devices=1, precision=precision)  # type: ignore[arg-type]


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
