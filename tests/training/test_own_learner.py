"""Gaussians that a class of the user's learns along with the flow: saved, resumed and named in errors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from nfpi.config.base import Settings
from nfpi.config.priors import PRIORS, LearnedMethod
from nfpi.priors import ClassStatistics, FixedPointDiverged, GaussianPrior, PriorLearner, register_prior
from nfpi.runtime.divergence import TrainingDiverged
from nfpi.training.flow import continue_training

from .conftest import assert_equal_states, start, train_once


class Scaled(PriorLearner):
    """Class means times one learned factor; neither `mean` nor `variance` is in its state."""

    def __init__(self, initial: GaussianPrior, weight: float, settings: Settings) -> None:
        super().__init__()
        self.initial, self.weight = initial, weight
        self.factor = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self) -> GaussianPrior:
        return GaussianPrior(self.factor * self.initial.mean, self.initial.variance)


class ScaledEveryStep(Scaled):
    every_epochs = None

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        self.optimizer = torch.optim.Adam(self.parameters(), lr=0.01)

    def repulsion(self, prior: GaussianPrior) -> Tensor:
        return -self.weight * self.factor.log()


class Shifted(PriorLearner):
    """Class means with a learned shift, and learned variances, in two groups of the optimizer, in another order."""

    every_epochs = None

    def __init__(self, initial: GaussianPrior, weight: float, settings: Settings) -> None:
        super().__init__()
        self.unused = nn.Parameter(initial.mean[:2])
        self.register_buffer("mean", initial.mean)
        self.log_variance = nn.Parameter(initial.variance.log())
        self.shift = nn.Parameter(torch.zeros_like(initial.mean[0]))
        self.optimizer = torch.optim.Adam(
            [{"params": [self.shift]}, {"params": [self.log_variance], "lr": 0.02}], lr=0.01
        )

    def forward(self) -> GaussianPrior:
        return GaussianPrior(self.mean + self.shift, self.log_variance.exp())


class ScaledEverySecondEpoch(Scaled):
    every_epochs = 2

    def fit(self, statistics: ClassStatistics, progress: float, nll_range: object = None) -> None:
        self.factor.data *= 1 + progress / 10 + statistics.variance.mean() / 100
        self.loss = self.factor.item()


class InPlace(ScaledEverySecondEpoch):
    def fit(self, *arguments: object) -> None:
        self.initial.variance.mul_(2)


class Diverging(ScaledEverySecondEpoch):
    def fit(self, *arguments: object) -> None:
        raise FixedPointDiverged(7, 2, "variance", self.weight)


class NotFinite(ScaledEverySecondEpoch):
    def fit(self, *arguments: object) -> None:
        self.factor.data *= torch.nan


@pytest.fixture(autouse=True)
def methods() -> Iterator[None]:
    before = dict(PRIORS._variants)
    for learner in (ScaledEveryStep, Shifted, ScaledEverySecondEpoch, InPlace, Diverging, NotFinite):
        register_prior(learner.__name__, learned=True)(learner)
    yield
    PRIORS._variants = before


def choose(learner: type[PriorLearner], weight: float = 5.0) -> LearnedMethod:
    return LearnedMethod(learner.__name__, weight, Settings())


@pytest.mark.parametrize("made", [5, 8, 11])
@pytest.mark.parametrize("learner", [ScaledEveryStep, ScaledEverySecondEpoch])
def test_a_resumed_training_equals_one_that_was_not_cut(make_data, device, cut_and_resume, learner, made):
    data, learned = make_data(epochs=5), choose(learner)
    state = cut_and_resume(data, made, learned)
    assert abs(state.learner.factor.item() - 1) > 1e-3
    assert state.learner.steps == (16 if learner is ScaledEveryStep else 2)
    assert_equal_states(state, train_once(data, device, learned))


@pytest.mark.parametrize("made", [5, 8])
def test_moments_are_those_of_their_parameters_in_any_order(make_data, device, cut_and_resume, made):
    data, learned = make_data(), choose(Shifted)
    state, prior = cut_and_resume(data, made, learned), start(data, device).prior
    assert 0.01 < state.learner.shift.abs().max() < 0.09
    assert (state.learner.log_variance - prior.variance.log()).abs().max() > 0.05
    assert torch.equal(state.learner.mean, prior.mean)
    assert_equal_states(state, train_once(data, device, learned))


def test_the_initial_gaussians_stay_what_they_are(make_data, device):
    """Though the learner trains a parameter that it made of what it was given."""
    data = make_data()
    begun = start(data, device)
    before = begun.prior.variance.clone()
    continue_training(begun.state, begun.prior, data, device, learned=choose(InPlace))
    assert torch.equal(begun.prior.variance, before)


def test_the_step_of_a_batch_follows_the_gradient_of_likelihood_and_repulsion(make_data, device):
    """A step of Adam is η·sign of the gradient, here of the repulsion, which is the larger by far."""
    data = make_data(epochs=2, batch_size=64)
    begun = start(data, device)
    state = continue_training(begun.state, begun.prior, data, device, learned=choose(ScaledEveryStep, 1e6))
    assert state.learner.factor.item() == pytest.approx(1.01)
    assert state.log[-1]["prior_loss"] is not None


def test_a_fit_that_diverges_and_gaussians_that_are_not_finite_are_named(make_data, device):
    data = make_data()
    begun, again = start(data, device), start(data, device)
    with pytest.raises(TrainingDiverged, match=r"epoch 2, step 4: .*variance.*class 2") as error:
        continue_training(begun.state, begun.prior, data, device, learned=choose(Diverging))
    assert (error.value.quantity, error.value.class_index) == ("variance", 2)
    with pytest.raises(TrainingDiverged, match=r"mean is not finite in class 0 \(seed 3\)"):
        continue_training(again.state, again.prior, data, device, learned=choose(NotFinite))
