"""Batches of a training, and the statistics of their latents."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nfpi.flows import MatrixExponentialFlow
from nfpi.priors import (
    ClassStatistics,
    ValueRange,
)
from nfpi.training.batches import STATISTICS_EPOCH, latent_statistics

from .conftest import SEED, assert_equal_states, replace_config, start, train_in_one_go


def test_statistics_are_those_of_the_latents_after_the_first_epochs(make_data, device):
    data = make_data()
    begun = start(data, device)
    with torch.no_grad():
        pairs = [(begun.state.flow(x)[0], y) for x, y in data.stream(SEED, STATISTICS_EPOCH)]
    z, y = torch.cat([z for z, _ in pairs]), torch.cat([y for _, y in pairs])
    expected = ClassStatistics.from_latents(z, y)
    assert torch.equal(begun.statistics.count, torch.full((3,), 20.0, dtype=torch.float64))
    torch.testing.assert_close(begun.statistics.mean, expected.mean, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(begun.statistics.variance, expected.variance, rtol=1e-10, atol=1e-10)


def test_likelihoods_of_the_pass_are_those_of_bits_per_dim(make_data, device):
    data = make_data((3, 8, 8))
    begun = start(data, device)
    prior, nll_range, expected = begun.prior.to(dtype=torch.float32), ValueRange(), []
    latent_statistics(begun.state.flow, data, SEED, prior, nll_range)
    with torch.no_grad():
        for x, labels in data.stream(SEED, STATISTICS_EPOCH):
            z, log_abs_det = begun.state.flow(x)
            normal = torch.distributions.Normal(prior.mean[labels], prior.variance[labels].sqrt())
            nll = -normal.log_prob(z.flatten(1)).sum(1) - log_abs_det
            expected.append(nll + 192 * np.log(128))
    nll = torch.cat(expected)
    assert nll.min() > 0
    assert nll_range.width == pytest.approx(1.2 * nll.max().item() - 0.8 * nll.min().item(), rel=1e-4)


def test_the_initialisation_takes_as_many_images_as_it_is_told(make_data, device, monkeypatch):
    seen = []
    initialize = MatrixExponentialFlow.initialize

    def note(flow: object, x: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        return initialize(flow, x)

    monkeypatch.setattr(MatrixExponentialFlow, "initialize", note)
    for wanted in (40, 1000):
        start(make_data(initialization_images=wanted), device)
    assert seen == [40, 60]  # there are no more than 60


def test_the_number_of_workers_changes_nothing(make_data, device):
    data = make_data((3, 8, 8), epochs=2, augmentation="released")
    assert_equal_states(train_in_one_go(replace_config(data, workers=2), device), train_in_one_go(data, device))
