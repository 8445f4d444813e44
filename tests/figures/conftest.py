"""A small flow with its class Gaussians, and the images that it was initialised on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from nfpi.data import ImageSet, read_image_set, write_image_set
from nfpi.data.domain import PixelDomain
from nfpi.flows import MatrixExponentialFlow
from nfpi.model import ClassConditionalFlow
from nfpi.priors import GaussianPrior

SHAPE = (1, 4, 4)
TRAINING = {"grey_noise": 0.05, "latent_noise": 0.05}


@pytest.fixture(scope="session")
def images(make_images: Callable[..., ImageSet]) -> ImageSet:
    return make_images(SHAPE, classes=3, per_class=20)


@pytest.fixture(scope="session")
def make_image_set(make_images: Callable[..., ImageSet]) -> Callable[..., Path]:
    """The same images on disk."""

    def make(folder: Path, *shape: object, **options: object) -> Path:
        images = make_images(*shape, **options)
        write_image_set(folder, images.images, images.labels, images.classes, name="toy", flip=False)
        return folder

    return make


@pytest.fixture(scope="session")
def model(images: ImageSet) -> ClassConditionalFlow:
    """Means are those of the latents; variances are small."""
    pixels = torch.from_numpy(np.array(images.images)).permute(0, 3, 1, 2)
    torch.manual_seed(0)
    flow = MatrixExponentialFlow(SHAPE, [1], [1], [8])
    flow.initialize(PixelDomain(0.05).to_flow(pixels, torch.Generator().manual_seed(0)))
    with torch.no_grad():
        z = flow(PixelDomain(0.0).to_flow(pixels, None))[0].flatten(1)
    labels = torch.from_numpy(images.labels)
    means = torch.stack([z[labels == label].mean(0) for label in range(3)])
    prior = GaussianPrior(means.double(), torch.full_like(means, 0.01, dtype=torch.float64))
    data = {"name": "toy", "classes": images.classes, "dtype": "uint8", "extra": {"flip": False}}
    return ClassConditionalFlow(flow, prior, {"seed": 3, "training": TRAINING, "data": data})


@pytest.fixture(scope="session")
def train_files(tmp_path_factory: pytest.TempPathFactory, make_image_set: Callable[..., Path]) -> list[Path]:
    """The images, on disk."""
    folder = make_image_set(tmp_path_factory.mktemp("data") / "train", SHAPE, classes=3, per_class=20)
    assert len(read_image_set(folder)) == 60
    return sorted(folder.iterdir())


@pytest.fixture(scope="session")
def model_files(tmp_path_factory: pytest.TempPathFactory, model: ClassConditionalFlow) -> list[Path]:
    """The model, on disk."""
    folder = tmp_path_factory.mktemp("run") / "model"
    model.save_pretrained(folder)
    return sorted(folder.iterdir())
