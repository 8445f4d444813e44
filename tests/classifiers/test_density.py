"""A classifier whose outputs are densities is scored as one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nfpi.classifiers.data import ClassifierData
from nfpi.classifiers.preprocessing import Preprocessing
from nfpi.classifiers.registry import build_classifier
from nfpi.classifiers.scoring import score_classifier
from nfpi.classifiers.training import train_classifier
from nfpi.config.classifiers import ClassifierConfig
from nfpi.runtime.device import make_device

CPU = torch.device("cpu")


class Uniform(torch.nn.Module):
    """Density of inputs in [−1, 1], the same for both classes."""

    is_density = True

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.full((len(images), 2), -math.log(2) * images[0].numel(), dtype=torch.float64)


def test_a_uniform_density_costs_eight_bits_a_dimension(make_images):
    images = make_images((3, 4, 4), classes=2)
    scores = score_classifier(Uniform(), images, Preprocessing(), CPU)
    assert scores.bits_per_dim == pytest.approx(math.log2(255), abs=1e-9)  # inputs of 255 levels cover [−1, 1]
    assert scores.log_prob.shape == (len(images), 2)


def test_the_quadratic_discriminant_is_fitted_with_noise_and_scored_as_a_density(make_images):
    images = make_images((1, 8, 8), classes=3, noise=60)
    config = ClassifierConfig(model="qda", train_on="real", epochs=0, architecture={"axes": [5, 20]})
    model = build_classifier(config, num_classes=3, in_channels=1, image_size=8)
    train_classifier(model, ClassifierData(images, images, config), 0, make_device(device=CPU))
    scores = score_classifier(model, images, Preprocessing(), CPU)
    assert scores.top1 > 90
    assert scores.bits_per_dim is not None
    assert 0 < scores.bits_per_dim < 8
    again = score_classifier(model, images, Preprocessing(), CPU)
    assert np.array_equal(scores.log_prob.numpy(), again.log_prob.numpy())
