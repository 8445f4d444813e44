"""Class Gaussians of the pixels against scikit-learn and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.covariance import LedoitWolf
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from nfpi.classifiers.discriminants import QuadraticDiscriminant
from nfpi.config.classifiers import QuadraticDiscriminantSettings

DIGITS = load_digits()
NOISE = np.random.default_rng(0).random(DIGITS.data.shape)
IMAGES = torch.from_numpy((DIGITS.data + NOISE) / 17 * 2 - 1).view(-1, 1, 8, 8)
LABELS = torch.from_numpy(DIGITS.target)
TRAIN, HELD_OUT = slice(0, 1200), slice(1200, None)


def fit(*axes: int) -> QuadraticDiscriminant:
    model = QuadraticDiscriminant(10, 1, 8, QuadraticDiscriminantSettings(axes=[*axes]))
    model.fit(IMAGES[TRAIN], LABELS[TRAIN], IMAGES[HELD_OUT], LABELS[HELD_OUT])
    return model


@pytest.mark.parametrize("axes", [1, 20, 63])
def test_its_density_is_that_of_scipys_gaussians(axes):
    pixels, held_out = (IMAGES[split].flatten(1).numpy() for split in (TRAIN, HELD_OUT))
    pca = PCA(64).fit(pixels)
    places = pca.transform(pixels)
    rest = (places[:, axes:] ** 2).mean()
    expected = []
    for label in range(10):
        own = LedoitWolf().fit(places[LABELS[TRAIN].numpy() == label][:, :axes])
        mean = np.concatenate([own.location_, np.zeros(64 - axes)])
        covariance = np.diag(np.full(64, rest))
        covariance[:axes, :axes] = own.covariance_
        expected.append(multivariate_normal(mean, covariance).logpdf(pca.transform(held_out)))
    np.testing.assert_allclose(fit(axes)(IMAGES[HELD_OUT]).numpy(), np.stack(expected, 1), rtol=1e-9)


def test_the_number_of_axes_is_that_of_highest_accuracy_on_held_out_images():
    accuracies = {
        axes: (fit(axes)(IMAGES[HELD_OUT]).argmax(1) == LABELS[HELD_OUT]).double().mean().item() for axes in (2, 20, 60)
    }
    best = max(accuracies, key=lambda axes: accuracies[axes])
    chosen, alone = fit(2, 20, 60)(IMAGES[HELD_OUT]), fit(best)(IMAGES[HELD_OUT])
    torch.testing.assert_close(chosen, alone, rtol=1e-9, atol=0)
    assert accuracies[best] > accuracies[2]


def test_fewer_images_than_pixels_leave_a_variance_on_the_other_axes():
    few = slice(0, 40)
    model = QuadraticDiscriminant(10, 1, 8, QuadraticDiscriminantSettings(axes=[60]))
    model.fit(IMAGES[few], LABELS[few], IMAGES[HELD_OUT], LABELS[HELD_OUT])
    bits = -model(IMAGES[HELD_OUT]).max(1).values.mean() / 64 / math.log(2)
    assert bits < 10


def test_its_density_integrates_to_one():
    """Of one pixel, on a grid."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 2
    images = (torch.randn(200, 1, 1, 1, generator=generator, dtype=torch.float64) + labels[:, None, None, None]) / 2
    model = QuadraticDiscriminant(2, 1, 1, QuadraticDiscriminantSettings(axes=[5]))
    model.fit(images, labels, images[:0], labels[:0])
    grid = torch.linspace(-10, 10, 20001, dtype=torch.float64).view(-1, 1, 1, 1)
    assert torch.trapezoid(model(grid).exp(), grid.flatten(), dim=0).tolist() == pytest.approx([1, 1], abs=1e-6)
    assert math.isfinite(model(grid).min())
