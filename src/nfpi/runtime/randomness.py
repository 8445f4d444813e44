"""Seeds for every purpose, derived from the one seed of a run.

Nothing in the project keeps the state of a random generator: each use derives its own seed from the run's seed and
from what it is for (an epoch, a step, an image), so a run that was cut goes on exactly as it would have gone.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch


def derive_seed(seed: int, *key: int | str) -> int:
    """A seed for each key, as if drawn independently; in [0, 2⁶³)."""
    spawn_key = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in key]
    return int(np.random.SeedSequence(seed, spawn_key=spawn_key).generate_state(1, np.uint64)[0] >> np.uint64(1))


def generator_for(device: torch.device | str, seed: int, *key: int | str) -> torch.Generator:
    """A new generator on `device`, seeded for this key."""
    return torch.Generator(device=device).manual_seed(derive_seed(seed, *key))
