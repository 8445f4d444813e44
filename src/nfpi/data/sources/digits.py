"""scikit-learn's digits: 1797 grey images of 8×8 pixels, included in the library."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import sklearn.datasets

from nfpi.config.datasets import DatasetConfig
from nfpi.data.sources.registry import SourceImages


def load_digits(config: DatasetConfig, download_folder: Path) -> SourceImages:
    """Load all digits as one split, with their 17 grey levels scaled to [0, 255]."""
    digits = sklearn.datasets.load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    return SourceImages(
        [str(name) for name in digits.target_names],
        {"train": (images[..., None], digits.target.astype(np.int64))},
    )
