from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nfpi.config.datasets import SOURCES
from nfpi.data import ImageSet, read_image_set, write_image_set

CLASSES = ["ant", "bee", "cow"]


@pytest.fixture
def arrays() -> tuple[np.ndarray, np.ndarray]:
    """60 RGB images of 8×8 pixels, 20 of each of three classes."""
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (60, 8, 8, 3), np.uint8), generator.permutation(np.repeat(np.arange(3), 20))


@pytest.fixture
def folder(tmp_path: Path, arrays: tuple[np.ndarray, np.ndarray]) -> Path:
    write_image_set(tmp_path / "set", *arrays, CLASSES, name="animals", split="train", seed=7)
    return tmp_path / "set"


@pytest.fixture
def image_set(folder: Path) -> ImageSet:
    return read_image_set(folder)


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """train (10 a class) and test (4 a class) as PNG files, RGB."""
    generator = np.random.default_rng(1)
    for split, count in (("train", 10), ("test", 4)):
        for name in CLASSES:
            place = tmp_path / "files" / split / name
            place.mkdir(parents=True)
            for index in range(count):
                Image.fromarray(generator.integers(0, 256, (6, 6, 3), np.uint8)).save(place / f"{index}.png")
    return tmp_path / "files"


@pytest.fixture
def restored_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources without those that the test registers, once it has ended."""
    monkeypatch.setattr(SOURCES, "_variants", dict(SOURCES._variants))
