"""Small images that a test can train on within a second, interrupted trainings, and archives."""

from __future__ import annotations

import io
import os
import signal
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from nfpi.data import ImageSet
from nfpi.runtime.checkpoints import Checkpoints

# These settings of containers hide faults of pipes and of bytecode caches, which most users' machines would show.
for name in ("PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"):
    os.environ.pop(name, None)
sys.dont_write_bytecode = False

# A shell without job control, as of CI, has what it starts in the background ignore Ctrl-C, and programs inherit this.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("without clock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("without clock")  # a busy machine must not fail a test


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Use one thread: tensors this small gain nothing from more, and tests may run side by side."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def make_images() -> Callable[..., ImageSet]:
    """Make labelled images in memory: a pattern for each class, with noise, in random order of classes."""

    def make(
        shape: tuple[int, int, int] = (1, 8, 8),
        classes: int = 3,
        per_class: int = 20,
        *,
        noise: float = 12.0,
        seed: int = 0,
        flip: bool = False,
    ) -> ImageSet:
        channels, height, width = shape
        pattern = np.random.default_rng(99).integers(40, 216, (classes, height, width, channels))
        generator = np.random.default_rng(seed)
        labels = generator.permutation(np.repeat(np.arange(classes), per_class))
        images = pattern[labels] + generator.normal(0, noise, (len(labels), height, width, channels))
        meta = {"name": "toy", "classes": [f"class{k}" for k in range(classes)], "extra": {"flip": flip}}
        return ImageSet(images.clip(0, 255).astype(np.uint8), labels, meta)

    return make


@pytest.fixture(scope="session")
def cut_after() -> Callable[[pytest.MonkeyPatch, int], list[int]]:
    """Interrupt the process after `saves` checkpoints; the returned list collects the steps of the checkpoints."""

    def cut(monkeypatch: pytest.MonkeyPatch, saves: int) -> list[int]:
        steps: list[int] = []
        save = Checkpoints.save

        def save_and_cut(checkpoints: Checkpoints, step: int, *content: object) -> None:
            save(checkpoints, step, *content)
            steps.append(step)
            if len(steps) == saves:
                raise KeyboardInterrupt

        monkeypatch.setattr(Checkpoints, "save", save_and_cut)
        return steps

    return cut


@pytest.fixture(scope="session")
def write_archive() -> Callable[[Path, str], None]:
    """Write a zip or tar archive of one file of one byte, under any name inside the archive."""

    def write(archive: Path, name: str) -> None:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive, "w") as file:
                file.writestr(name, b"x")
        else:
            with tarfile.open(archive, "w") as file:
                member = tarfile.TarInfo(name)
                member.size = 1
                file.addfile(member, io.BytesIO(b"x"))

    return write
