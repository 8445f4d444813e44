"""Which rows of an array are written, saved for the process that continues it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from nfpi.runtime.checkpoints import Checkpoints


class Progress:
    """Labels and checksums of the written rows, in checkpoints beside the array.

    Args:
        folder: of the array.
        fingerprint: of everything that the rows depend on, in hexadecimal.
        minutes: time between two saves.
    """

    def __init__(self, folder: Path, fingerprint: str, minutes: float) -> None:
        self._checkpoints = Checkpoints(folder, fingerprint, minutes, "row")

    def due(self) -> bool:
        """Tell whether to save now."""
        return self._checkpoints.due()

    def save(self, count: int, labels: np.ndarray, sums: np.ndarray) -> None:
        """Save labels (N,) and checksums (N,) when `count` rows are written."""
        self._checkpoints.save(count, {"labels": torch.from_numpy(labels), "sums": torch.from_numpy(sums)}, {})

    def load(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Load labels (N,) and checksums (N,); None where nothing is saved."""
        found = self._checkpoints.load()
        return None if found is None else (found[0]["labels"].numpy(), found[0]["sums"].numpy())

    def clear(self) -> None:
        """Remove what is saved."""
        self._checkpoints.clear()
