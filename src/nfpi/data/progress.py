"""Saved progress of an array that is written row by row, for resuming."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from nfpi.runtime.checkpoints import Checkpoints


class Progress:
    """Labels and checksums of the written rows, in checkpoints beside the array.

    Args:
        folder: folder of the array.
        fingerprint: digest of everything that the rows depend on, in hexadecimal.
        minutes: time between two saves.
    """

    def __init__(self, folder: Path, fingerprint: str, minutes: float) -> None:
        self._checkpoints = Checkpoints(folder, fingerprint, minutes, "row")

    def is_due(self) -> bool:
        """Return whether it is time to save."""
        return self._checkpoints.is_due()

    def save(self, count: int, labels: np.ndarray, sums: np.ndarray) -> None:
        """Save labels (N,) and checksums (N,); `count` is the number of written rows."""
        self._checkpoints.save(count, {"labels": torch.from_numpy(labels), "sums": torch.from_numpy(sums)}, {})

    def load(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Load labels (N,) and checksums (N,); None if nothing is saved."""
        checkpoint = self._checkpoints.load()
        return None if checkpoint is None else (checkpoint[0]["labels"].numpy(), checkpoint[0]["sums"].numpy())

    def clear(self) -> None:
        """Remove all checkpoints."""
        self._checkpoints.clear()
