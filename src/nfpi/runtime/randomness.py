"""Seeds for every purpose, derived from the seed of a run.

The state of a random generator is never saved: each use derives its own seed from the run's seed and its purpose (an
epoch, a step, an image), so that a resumed run continues exactly as an uninterrupted one.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch


def derive_seed(seed: int, *key: int | str) -> int:
    """Derive the seed of a key, in [0, 2⁶³); seeds of different keys are practically independent."""
    spawn_key = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in key]
    return int(np.random.SeedSequence(seed, spawn_key=spawn_key).generate_state(1, np.uint64)[0] >> np.uint64(1))


def make_generator(device: torch.device | str, seed: int, *key: int | str) -> torch.Generator:
    """Make a generator on `device`, seeded by :func:`derive_seed`."""
    return torch.Generator(device=device).manual_seed(derive_seed(seed, *key))


def seed_default_generators(seed: int, device: torch.device) -> None:
    """Seed PyTorch's default generators of the CPU and of `device`, and no others, unlike `torch.manual_seed`.

    The index of `device` counts only for CUDA: of other types, the current device is seeded.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    elif device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
