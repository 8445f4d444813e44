"""Methods of a user's own: what they are called with, and what they may return."""

from __future__ import annotations

import math
import sys

import pytest
import torch

from nfpi.config.base import Settings
from nfpi.config.priors import PRIORS, FixedPointConfig, LearnedMethod, RepeatedFixedPointSettings
from nfpi.priors import (
    ClassStatistics,
    FixedPointResult,
    GaussianPrior,
    PriorLearner,
    fit_fixed_point,
    initial_prior,
    register_prior,
)
from nfpi.priors.registry import fit_prior, make_learner


class Circle(Settings):
    radius: float = 2.0


def gaussians(statistics: ClassStatistics) -> GaussianPrior:
    return GaussianPrior(statistics.mean, statistics.variance)


def test_a_method_gets_statistics_initial_weight_and_settings(statistics):
    received = []

    @register_prior("circle", Circle, uses_weight=False)
    def fit_circle(*arguments):
        received.extend(arguments)
        return GaussianPrior(statistics.mean.float(), torch.ones(3, 4))

    initial, settings = gaussians(statistics), Circle(radius=3)
    prior = fit_prior(PRIORS.get_block_type("circle")(radius=3), statistics, initial, 0.0).prior
    assert received == [statistics, initial, 0.0, settings]
    assert prior.mean.dtype == prior.variance.dtype == torch.float64
    assert fit_circle is PRIORS["circle"].build


def test_the_built_in_method_is_the_fixed_point_iteration(statistics):
    block = PRIORS.get_block_type("fixed_point")(update="exact", alpha=5.0)
    found = fit_prior(block, statistics, gaussians(statistics), 3.0)
    expected = fit_fixed_point(statistics, FixedPointConfig(weight=3.0, update="exact", alpha=5.0))
    assert found.record["iterations"] == expected.iterations > 1
    assert found.residuals == expected.residuals.tolist()
    assert torch.equal(found.prior.mean, expected.prior.mean)
    assert torch.equal(found.prior.variance, expected.prior.variance)


@pytest.mark.parametrize("method", [*PRIORS])
def test_every_method_gives_proper_gaussians_of_its_default_settings(statistics, method):
    """Fitted once by its builder, or learned along with a flow, here from the statistics of its latents."""
    settings = PRIORS[method].settings()
    initial = gaussians(statistics)
    if not PRIORS[method].traits["learned"]:
        prior = fit_prior(PRIORS.get_block_type(method)(), statistics, initial, 3.0).prior
    else:
        learner = make_learner(LearnedMethod(method, 3.0, settings), initial)
        assert (learner.steps, learner.loss) == (0, None)
        assert learner.method.name == method
        learner.update(statistics, 0.0)
        assert learner.steps == 1
        assert math.isfinite(learner.loss)
        prior = learner.prior
    prior.check()
    assert prior.mean.shape == (3, 4)
    assert prior.mean.dtype == prior.variance.dtype == torch.float64
    assert not (torch.equal(prior.mean, initial.mean) and torch.equal(prior.variance, initial.variance))
    if getattr(settings, "fit_variance", False):
        assert not torch.equal(prior.variance, initial.variance)


def test_a_cell_of_a_notebook_may_be_run_again(monkeypatch):
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)

    def fit_first(*_: object) -> None: ...
    def fit_second(*_: object) -> None: ...

    for fit_again in (fit_first, fit_second):
        fit_again.__module__ = "__main__"
        register_prior("from_a_cell", Circle)(fit_again)
    assert PRIORS["from_a_cell"].build is fit_second


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda _: None, "NoneType"),
        (lambda s: s.mean, "Tensor"),
        (lambda s: GaussianPrior(s.mean[:2], s.variance[:2]), r"\(2, 4\)"),
        (lambda s: GaussianPrior(s.mean, -s.variance), "variance.* class 0"),
        (lambda s: GaussianPrior(s.mean * torch.nan, s.variance), "mean.* class 0"),
        (lambda s: FixedPointResult(GaussianPrior(s.mean / 0, s.variance), 1, torch.zeros(1, 2), True), "mean.*0"),
    ],
)
def test_an_improper_result_is_refused_in_one_line(statistics, result, message):
    register_prior("wrong")(lambda s, *_: result(s))
    with pytest.raises(ValueError, match=rf"prior method 'wrong': .*{message}") as error:
        fit_prior(PRIORS.get_block_type("wrong")(), statistics, gaussians(statistics), 1.0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("start", ["data", "isotropic", "identity", "random"])
def test_initial_gaussians(statistics, start):
    prior, again, other = (initial_prior(statistics, start, seed) for seed in (3, 3, 4))
    assert torch.equal(prior.mean, again.mean)
    assert torch.equal(prior.mean, other.mean) == (start != "random")
    assert torch.equal(prior.mean, statistics.mean) == (start != "random")
    isotropic = statistics.variance.mean(1, keepdim=True).expand(3, 4)
    expected = {"data": statistics.variance, "isotropic": isotropic}.get(start, torch.ones(3, 4, dtype=torch.float64))
    assert torch.equal(prior.variance, expected)


@pytest.mark.parametrize("start", ["unit", "Data", None])
def test_unknown_starts_are_refused(statistics, start):
    with pytest.raises(ValueError, match=f"^start:.*{start!r}$"):
        initial_prior(statistics, start, 3)


def test_repeated_fits_have_no_full_covariances():
    """The off-diagonal elements would be dropped."""
    z, y = torch.randn(60, 4, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 3
    full = ClassStatistics.from_latents(z, y, covariance=True)

    def make(**settings: object) -> PriorLearner:
        method = LearnedMethod("repeated_fixed_point", 3.0, RepeatedFixedPointSettings(**settings))
        return make_learner(method, gaussians(full))

    learner = make(update="exact")
    before = learner.prior
    with pytest.raises(ValueError, match="full ones"):
        learner.update(full, 0.0)
    assert torch.equal(learner.prior.variance, before.variance)
    assert learner.steps == 0
    learner = make(update="exact", isotropic_variance=True)
    learner.update(full, 0.0)
    assert learner.steps == 1
