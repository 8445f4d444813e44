"""Whether a fitted flow follows its Gaussians, and Gaussians estimated again from the latents of images."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import numpy as np
import pytest
import torch

from nfpi import ClassConditionalFlow
from nfpi.config.experiments import Refit
from nfpi.config.metrics import MISMATCH_LIMIT
from nfpi.config.priors import PRIORS
from nfpi.model import class_conditional
from nfpi.model.fitting import estimate_again
from nfpi.model.hub import make_card
from nfpi.priors import ClassStatistics, GaussianPrior
from nfpi.priors.registry import fit_prior, initial_prior

from .conftest import SMALL


def read_gaussians(model: ClassConditionalFlow) -> tuple[torch.Tensor, torch.Tensor]:
    return model.prior.mean.clone(), model.prior.variance.clone()


def test_under_the_class_moments_nothing_is_mismatched(fitted, images):
    before, config = read_gaussians(fitted), dict(fitted.config)
    model = fitted.refit(images.images, images.labels)
    found = model.measure_following(images.images, images.labels)
    assert found.mismatch == 0
    assert found.beta == pytest.approx(1, abs=1e-6)
    assert found.distance == pytest.approx(19 / 20)  # variances have the divisor n − 1
    assert found.prior_separation == found.latent_separation
    assert model.config["following"] == {"beta": found.beta, "mismatch": found.mismatch}
    prior = {name: value for name, value in config["prior"].items() if name not in ("iterations", "converged")}
    assert model.config["prior"] == {**prior, "refit": "moments"}
    assert all(torch.equal(a, b) for a, b in zip(read_gaussians(fitted), before, strict=True))
    assert fitted.config == config
    assert model.flow is fitted.flow


def test_measures_are_those_of_latents_with_noise(fitted, images):
    """Nearly those of `encode`, whose latents all have the same noise; the mismatch is that of bits/dim."""
    z, mean = fitted.encode(images.images).astype(float), fitted.prior.mean.numpy()
    variance = fitted.prior.variance.numpy()
    found = fitted.measure_following(images.images, [fitted.classes[label] for label in images.labels])
    distance = ((z - mean[images.labels]) ** 2 / variance[images.labels]).mean()
    assert found.distance == pytest.approx(distance, rel=0.05)
    centred = mean - mean.mean(0)
    means = np.stack([z[images.labels == k].mean(0) for k in range(3)])
    beta = ((means - means.mean(0)) * centred / variance).sum() / (centred**2 / variance).sum()
    assert found.beta == pytest.approx(beta, rel=0.05)
    refitted = fitted.refit(images.images, images.labels)
    own, again = (model.bits_per_dim(images.images, images.labels).mean() for model in (fitted, refitted))
    assert found.mismatch == pytest.approx(own - again, abs=0.05)


def test_constant_pixels_have_the_variance_of_their_noise(fitted, images):
    """With the noise of `encode`, the latents of equal images would be equal."""
    equal = np.repeat(images.images[:3], 5, axis=0)
    model = fitted.refit(equal, np.repeat([0, 1, 2], 5))
    assert (model.prior.variance > 0).all()


def test_the_method_of_the_prior_is_called_with_the_latents(fitted, images, monkeypatch):
    given: list[ClassStatistics] = []

    def estimate(
        config: dict[str, Any], statistics: ClassStatistics, how: Refit
    ) -> tuple[GaussianPrior, dict[str, Any]]:
        given.append(statistics)
        return estimate_again(config, statistics, how)

    monkeypatch.setattr(class_conditional, "estimate_again", estimate)
    model = fitted.refit(images.images, images.labels, how="prior")
    block = PRIORS.validate(fitted.config["prior"]["settings"])
    expected = fit_prior(block, given[0], initial_prior(given[0], "data", fitted.seed), 100.0)
    assert torch.equal(model.prior.mean, expected.prior.mean)
    assert torch.equal(model.prior.variance, expected.prior.variance)
    assert model.config["prior"] == {**expected.record, "refit": "prior"}


def test_initial_gaussians_that_were_kept_are_made_again(fitted, images):
    """As in the workflow at λ = 0."""
    config = {**fitted.config, "prior": {"lambda": 0.0}, "start": "data"}
    kept = dataclasses.replace(fitted, config=config)
    again, moments = (kept.refit(images.images, images.labels, how) for how in ("prior", "moments"))
    assert torch.equal(again.prior.mean, moments.prior.mean)


@pytest.mark.parametrize(
    ("changes", "how", "message"),
    [
        ({"prior": {}, "start": "release"}, "prior", "moments"),
        (
            {"prior": {"method": "gradient_descent", "settings": {"method": "gradient_descent"}, "lambda": 1.0}},
            "prior",
            "gradient_descent",
        ),
        ({}, "mean", "'mean'"),
    ],
)
def test_what_cannot_be_estimated_again_is_one_line(fitted, images, changes, how, message):
    model = dataclasses.replace(fitted, config={**fitted.config, **changes})
    with pytest.raises(ValueError) as error:  # noqa: PT011, the message is compared
        model.refit(images.images, images.labels, how)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_images_of_one_class_measure_nothing(fitted, images):
    ones = images.labels == 1
    with pytest.raises(ValueError, match="class 0"):
        fitted.measure_following(images.images[ones], images.labels[ones])


def test_full_covariances_are_measured_and_estimated_again(fitted, make_images):
    many = make_images(per_class=80, seed=2)
    full = GaussianPrior(fitted.prior.mean, covariance=torch.diag_embed(fitted.prior.variance))
    model = dataclasses.replace(fitted, prior=full)
    found, expected = (one.measure_following(many.images, many.labels) for one in (model, fitted))
    for name in ("beta", "distance", "prior_separation", "latent_separation"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name)), name
    assert found.mismatch > expected.mismatch  # than under better moments
    refitted = model.refit(many.images, many.labels)
    assert refitted.prior.is_full
    assert refitted.measure_following(many.images, many.labels).mismatch == pytest.approx(0, abs=1e-9)
    assert model.measure_following(many.images[:90], many.labels[:90]).mismatch is None  # 64 dimensions


def test_a_refitted_model_is_saved_with_what_is_known_of_it(fitted, images, tmp_path):
    model = fitted.refit(images.images, images.labels)
    model.save_pretrained(tmp_path)
    read = ClassConditionalFlow.from_pretrained(tmp_path)
    assert (read.log_prob(images.images) == model.log_prob(images.images)).all()
    assert read.config == model.config
    assert "refit moments" in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_scores_under_the_former_gaussians_are_left_out(fitted, images):
    scored = dataclasses.replace(fitted, config={**fitted.config, "validation": {"n": 9, "nf_acc": 50.0}})
    assert "validation" not in scored.refit(images.images, images.labels).config


def test_a_fit_says_when_the_flow_does_not_follow(images, caplog):
    strong = ClassConditionalFlow.fit(
        images.images, images.labels, flow=SMALL, epochs=2, weight=1e4, validation=0.1, progress=False
    )
    mismatch = strong.config["following"]["mismatch"]
    assert mismatch > MISMATCH_LIMIT
    (record,) = (record for record in caplog.records if record.levelno == logging.WARNING)
    assert f"{mismatch:.2f} bits/dim" in record.getMessage()
    assert f"{mismatch:.2f} bits/dim" in make_card(strong, None, None).text


def test_a_fit_says_nothing_when_the_flow_follows(images, caplog):
    weak = ClassConditionalFlow.fit(images.images, images.labels, flow=SMALL, epochs=40, weight=0, progress=False)
    found = weak.measure_following(images.images, images.labels)
    assert weak.config["following"] == {"beta": found.beta, "mismatch": found.mismatch}
    assert found.mismatch < MISMATCH_LIMIT
    assert "follow" not in caplog.text
