"""Learners of a user's own: what they are called with, what they must be, and how their fits are counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from nfpi.config.base import ConfigError, Settings
from nfpi.config.priors import PRIORS, LearnedMethod
from nfpi.priors import ClassStatistics, GaussianPrior, PriorLearner, register_prior
from nfpi.priors.registry import make_learner


class Pull(Settings):
    rate: float = 0.5


class Follower(PriorLearner):
    """Means that move towards the class means of every fit."""

    def __init__(self, initial: GaussianPrior, weight: float, settings: Pull) -> None:
        super().__init__()
        self.arguments = (initial, weight, settings)
        self.register_buffer("centre", initial.mean.clone())
        self.register_buffer("spread", initial.variance.clone())

    def forward(self) -> GaussianPrior:
        return GaussianPrior(self.centre, self.spread)

    def fit(self, statistics: ClassStatistics, progress: float, nll_range: object = None) -> None:
        self.centre = self.centre + self.arguments[2].rate * (statistics.mean - self.centre)


def make(learner: object, settings: Settings | None = None, weight: float = 3.0) -> PriorLearner:
    register_prior("own", type(settings or Settings()), learned=True)(learner)
    initial = GaussianPrior(torch.zeros(3, 4), torch.ones(3, 4))
    return make_learner(LearnedMethod("own", weight, settings or Settings()), initial)


def test_a_learner_gets_initial_gaussians_weight_and_settings(statistics: ClassStatistics) -> None:
    learner = make(Follower, Pull(rate=0.25))
    initial, weight, settings = learner.arguments
    assert (initial.mean.dtype, initial.variance.dtype) == (torch.float64, torch.float64)
    assert (weight, settings) == (3.0, Pull(rate=0.25))
    assert learner.method == LearnedMethod("own", 3.0, Pull(rate=0.25))
    learner.update(statistics, 0.0)
    learner.update(statistics, 0.5)
    assert learner.steps == 2
    torch.testing.assert_close(learner.prior.mean, (1 - 0.75**2) * statistics.mean)


def test_the_prior_of_a_learner_is_a_copy_without_gradient() -> None:
    class Learned(Follower):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)
            self.centre = nn.Parameter(self._buffers.pop("centre"))

    learner = make(Learned)
    assert learner().mean.requires_grad
    prior = learner.prior
    assert not prior.mean.requires_grad
    prior.mean += 1
    assert (learner.prior.mean == 0).all()
    assert learner.repulsion(learner()) == 0


def test_a_method_round_trips_through_json() -> None:
    class Files(Pull):
        file: Path = Path("means.csv")

    register_prior("own", Files, learned=True)(Follower)
    method = LearnedMethod("own", 2.0, Files(rate=0.125))
    assert LearnedMethod.from_json("own", json.loads(json.dumps(method.to_json()))) == method
    assert LearnedMethod.from_block(PRIORS.get_block_type("own")(rate=0.125, start="random"), 2.0) == method


def test_a_class_with_other_arguments_is_refused() -> None:
    class Other(PriorLearner):
        def __init__(self, initial: GaussianPrior) -> None: ...

    with pytest.raises(ConfigError, match=r"prior method 'own': .*\(initial, weight, settings\)"):
        register_prior("own", learned=True)(Other)
    with pytest.raises(ConfigError, match=r"\(statistics, initial, weight, settings\)"):
        register_prior("own")(Follower)


def giving(give: Callable[[Follower], object]) -> type[Follower]:
    """A learner whose Gaussians are what `give` returns."""

    class Giving(Follower):
        forward = give

    return Giving


class EveryStep(Follower):
    every_epochs = None


class WithForeignParameter(EveryStep):
    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        self.optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(3))])


@pytest.mark.parametrize(
    ("learner", "message"),
    [
        (lambda initial, *_: initial, "GaussianPrior"),
        (giving(lambda self: GaussianPrior(self.centre[:2], self.spread[:2])), r"\(2, 4\)"),
        (giving(lambda self: GaussianPrior(self.centre, -self.spread)), "prior: variance.*class 0"),
        (giving(lambda self: GaussianPrior(self.centre, covariance=self.spread.diag_embed())), "full ones"),
        (giving(lambda self: (self.centre, self.spread)), "tuple"),
        (WithForeignParameter, "optimizer"),
    ],
)
def test_an_improper_learner_is_refused_in_one_line(learner: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"^prior method 'own': .*{message}.*$"):
        make(learner)


def test_a_missing_optimizer_is_named() -> None:
    with pytest.raises(ValueError, match=r"EveryStep: .*optimizer"):
        make(EveryStep).step(0.0)


@pytest.mark.parametrize("method", ["fit", "forward"])
def test_a_missing_method_is_named(statistics: ClassStatistics, method: str) -> None:
    class Incomplete(Follower): ...

    setattr(Incomplete, method, getattr(PriorLearner, method))
    with pytest.raises(NotImplementedError, match="Incomplete"):
        make(Incomplete).update(statistics, 0.0)


def test_a_method_that_does_not_learn_is_refused() -> None:
    with pytest.raises(ValueError, match="fixed_point"):
        LearnedMethod("fixed_point", 1.0, PRIORS["fixed_point"].settings())


def test_lambda_is_no_setting_of_a_learned_method() -> None:
    class Weighted(Settings):
        weight: float = 0.5

    with pytest.raises(ConfigError, match="prior method 'own'"):
        register_prior("own", Weighted, learned=True)(Follower)


def test_the_loss_of_a_fit_is_a_number(statistics: ClassStatistics) -> None:
    class WithLoss(Follower):
        def fit(self, *arguments: object) -> None:
            self.loss = torch.tensor(2.5)

    learner = make(WithLoss)
    learner.update(statistics, 0.0)
    assert type(learner.loss) is float
