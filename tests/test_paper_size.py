"""The flow of the paper takes a training step on CIFAR-10 images."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nfpi.config.flows import MatrixExponentialSettings
from nfpi.flows import MatrixExponentialFlow
from nfpi.flows.dequantization import dequantize
from nfpi.priors import ClassStatistics, GaussianPrior
from nfpi.runtime.randomness import make_generator
from nfpi.training.likelihood import negative_log_likelihood

ARCHIVE = Path(os.environ.get("NFPI_SHARED", Path(__file__).parents[2] / "shared")) / "data" / "cifar10-jpeg.tar.xz"


def _first_images(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The first images of the archive, (B, 3, 32, 32) uint8, and labels in turn, since they are of one class."""
    images = []
    with tarfile.open(ARCHIVE) as archive:
        for member in archive:
            if member.isfile() and member.name.endswith(".jpg"):
                file = archive.extractfile(member)
                assert file is not None
                images.append(np.asarray(Image.open(io.BytesIO(file.read())).convert("RGB")))
            if len(images) == count:
                break
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), torch.arange(count) % 2


@pytest.mark.skipif(not ARCHIVE.is_file(), reason="the CIFAR-10 images are not here")
def test_a_training_step_on_real_images_lowers_the_loss():
    images, labels = _first_images(16)
    x = dequantize(images, make_generator("cpu", 0, "test"))
    torch.manual_seed(0)
    flow = MatrixExponentialFlow((3, 32, 32), **MatrixExponentialSettings().model_dump())
    flow.initialize(x)
    with torch.no_grad():
        statistics = ClassStatistics.from_latents(flow(x)[0], labels)
    prior = GaussianPrior(statistics.mean, torch.ones_like(statistics.mean)).to(dtype=torch.float32)
    optimizer = torch.optim.Adamax(flow.parameters(), lr=1e-5)  # of the first step of the warm-up
    losses = []
    for _ in range(2):
        loss = negative_log_likelihood(flow, prior, x[:4], labels[:4]).mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in flow.parameters())
        optimizer.step()
    assert np.isfinite(losses).all()
    assert losses[1] < losses[0]
