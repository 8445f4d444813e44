"""Gaussians that are learned along with the flow."""

from __future__ import annotations

import re

import pytest
import torch

from nfpi.config.priors import FixedPointConfig
from nfpi.priors import (
    FixedPointDiverged,
    GaussianLearner,
    GaussianPrior,
    ValueRange,
    fit_fixed_point,
    repeated_fixed_point,
)
from nfpi.priors.registry import make_learner
from nfpi.runtime.divergence import TrainingDiverged
from nfpi.runtime.signals import Interruption
from nfpi.training.batches import STATISTICS_EPOCH, latent_statistics
from nfpi.training.epoch_prior import LearnedPrior, prepare_epoch_prior
from nfpi.training.flow import continue_training
from nfpi.training.state import TrainingState, require_finite

from .conftest import (
    CPU,
    LEARNED,
    SEED,
    assert_equal_learners,
    assert_equal_states,
    descend,
    make_checkpoints,
    repeat_fits,
    replace_config,
    start,
    train_in_one_go,
    train_once,
)


@pytest.mark.parametrize("how", LEARNED)
@pytest.mark.parametrize("epochs_before", [1, 2])
def test_learning_in_parts_and_in_one_agree_bit_for_bit(make_data, device, tmp_path, how, epochs_before):
    data = make_data(fit_after_epochs=epochs_before)
    begun = start(data, device)
    begun.state.save(tmp_path / "state.safetensors", {})
    state, _ = TrainingState.load(tmp_path / "state.safetensors", data.config, data.steps_per_epoch, CPU)
    state = continue_training(state, begun.prior, data, device, learned=LEARNED[how])
    assert state.learner.steps == (3 - epochs_before) * (4 if how == "step" else 1)
    assert_equal_states(state, train_once(data, device, LEARNED[how]))


@pytest.mark.parametrize("how", LEARNED)
@pytest.mark.parametrize("made", [5, 8, 10])
def test_a_resumed_learner_equals_one_that_was_not_cut(make_data, device, cut_and_resume, how, made):
    data = make_data()
    assert_equal_states(cut_and_resume(data, made, LEARNED[how]), train_once(data, device, LEARNED[how]))


def test_a_step_that_was_made_before_the_cut_is_not_made_again(make_data, device, tmp_path):
    """Cut between the step of the Gaussians and the first batch of their epoch."""
    data, file = make_data(), tmp_path / "state.safetensors"
    begun = start(data, device)
    begun.state.learner = make_learner(LEARNED["epoch"], begun.prior)
    prepare_epoch_prior(begun.state, begun.prior, data, Interruption())
    assert begun.state.learner.steps == 1
    begun.state.save(file, {})
    state, _ = TrainingState.load(file, data.config, data.steps_per_epoch, CPU, begun.prior)
    state = continue_training(state, begun.prior, data, device, learned=LEARNED["epoch"])
    assert_equal_states(state, train_once(data, device, LEARNED["epoch"]))


@pytest.mark.parametrize("how", ["epoch", "released"])
def test_an_epoch_is_trained_under_the_gaussians_of_the_step_before_it(make_data, device, how):
    """The first step is down the objective of the statistics that the start left."""
    data = make_data(epochs=2)
    begun, again = start(data, device), start(data, device)
    by_hand, nll_range = make_learner(LEARNED[how], begun.prior), None
    if how == "released":
        nll_range = ValueRange()
        prior = by_hand.prior.to(dtype=torch.float32)
        latent_statistics(begun.state.flow, data, SEED, prior, nll_range)
    by_hand.update(begun.statistics, 0.0, nll_range)
    learned = continue_training(begun.state, begun.prior, data, device, learned=LEARNED[how])
    assert_equal_learners(learned.learner, by_hand)
    fixed = continue_training(again.state, by_hand.prior, data, device)
    for one, other in zip(learned.flow.parameters(), fixed.flow.parameters(), strict=True):
        assert torch.equal(one, other)
    assert [row["prior_loss"] for row in learned.log] == [None, by_hand.loss]
    assert learned.log[1]["validation_nf_acc"] == fixed.log[1]["validation_nf_acc"]
    assert learned.log[1]["validation_bits_per_dim"] == fixed.log[1]["validation_bits_per_dim"]


def test_gaussians_move_with_the_flow_along_the_batch(make_data, device):
    """One step an epoch: Adam's first one is η·sign of the gradient of the batch's mean of −log p + λ L_KLD / K."""
    data, config = make_data(epochs=2, batch_size=64), LEARNED["step"]
    begun = start(data, device)
    learner = make_learner(config, begun.prior)
    ((x, labels),) = data.stream(SEED, 1)
    prior = learner()
    with torch.no_grad():
        z, _ = begun.state.flow(x)
    nll = -prior.log_prob(z).gather(1, labels[:, None]).mean()
    (nll + learner.repulsion(prior) / 3).backward()
    state = continue_training(begun.state, begun.prior, data, device, learned=config)
    for name in ("mean", "spread"):
        before = getattr(learner, name)
        clear = before.grad.abs() > 1e-5  # a sign that float32 does not turn
        assert clear.double().mean() > 0.9
        moved = (getattr(state.learner, name) - before).detach()[clear]
        torch.testing.assert_close(moved, -0.01 * before.grad[clear].sign(), rtol=2e-3, atol=0)


def test_the_repulsion_of_a_batch_is_that_of_equation_4_over_the_classes(make_data, device):
    """On all latents, classes of one size: what a batch is trained on is Eq. 4 over K, log-determinants aside."""
    data = make_data()
    begun = start(data, device)
    learner = make_learner(LEARNED["step"], begun.prior)
    with torch.no_grad():
        pairs = [(begun.state.flow(x)[0], y) for x, y in data.stream(SEED, STATISTICS_EPOCH)]
    z, labels = torch.cat([z for z, _ in pairs]), torch.cat([y for _, y in pairs])
    learned = LearnedPrior(learner, CPU)
    loss = learned.compute_loss(-learned.get_gaussians().log_prob_of(z, labels))
    assert loss.item() == pytest.approx(learner.objective(begun.statistics).item() / 3, rel=1e-5)


def test_step_sizes_run_from_the_first_step_to_the_end_of_training(make_data, device, monkeypatch):
    seen = []
    step = GaussianLearner.step
    monkeypatch.setattr(GaussianLearner, "step", lambda learner, u: (seen.append(u), step(learner, u))[1])
    train_in_one_go(make_data(epochs=5), device, LEARNED["epoch"])
    assert seen == [0.0, 0.25, 0.5, 0.75]
    seen.clear()
    train_in_one_go(make_data(), device, LEARNED["step"])
    assert seen == [step / 8 for step in range(8)]


@pytest.mark.parametrize("how", ["epoch", "step"])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_gaussians_that_are_not_finite_name_epoch_class_and_quantity(make_data, device, tmp_path, how, checkpointed):
    """Classes 1 and 2 coincide, so that π is 0."""
    data = make_data()
    begun = start(data, device)
    mean = begun.prior.mean.clone()
    mean[2] = mean[1]
    checkpoints = make_checkpoints(tmp_path, data) if checkpointed else None
    with pytest.raises(TrainingDiverged) as error:
        continue_training(
            begun.state, GaussianPrior(mean, torch.ones_like(mean)), data, device, checkpoints, learned=LEARNED[how]
        )
    assert re.fullmatch(r".*epoch 2, step .*mean is not finite in class [0-2].*", str(error.value))


def test_an_objective_that_is_not_finite_is_named(make_data, device):
    data = make_data()
    begun = start(data, device)
    begun.state.learner = make_learner(LEARNED["epoch"], begun.prior)
    begun.state.learner.loss = float("inf")
    with pytest.raises(TrainingDiverged, match="epoch 2, step 4"):
        require_finite(begun.state, data.config, 2)


@pytest.mark.parametrize("other", [None, descend(21.0)])
def test_a_learner_goes_on_as_it_began(make_data, device, other):
    data = make_data()
    state = train_in_one_go(replace_config(data, epochs=2), device, LEARNED["epoch"])
    with pytest.raises(ValueError, match="state"):
        continue_training(state, start(data, device).prior, data, device, learned=other)


# ---- fits that are repeated ----------------------------------------------------------------------------------


def test_one_fit_of_many_is_the_single_fit(make_data, device):
    """No second fit within the training: the Gaussians and all weights are those of the method `fixed_point`."""
    data, settings = make_data(epochs=4), {"weight": 20.0, "update": "exact", "tolerance": 1e-6}
    begun, again = start(data, device), start(data, device)
    repeated = continue_training(
        begun.state, begun.prior, data, device, learned=repeat_fits(**settings, every_epochs=3)
    )
    fitted = fit_fixed_point(again.statistics, FixedPointConfig(**settings), again.prior)
    assert fitted.iterations > 1
    single = continue_training(again.state, fitted.prior, data, device)
    assert repeated.learner.steps == 1
    assert torch.equal(repeated.learner.prior.mean, fitted.prior.mean)
    assert torch.equal(repeated.learner.prior.variance, fitted.prior.variance)
    assert [row["prior_loss"] is None for row in repeated.log] == [True, False, True, True]
    for log in (repeated.log, single.log):
        for row in log:
            row["prior_loss"] = None
    repeated.learner = None
    assert_equal_states(repeated, single)


@pytest.mark.parametrize(("every_epochs", "fits"), [(1, 4), (2, 2), (3, 2), (4, 1)])
def test_fits_come_every_few_epochs_and_each_goes_on_from_the_last(make_data, device, monkeypatch, every_epochs, fits):
    data, made = make_data(epochs=5), []
    fit = repeated_fixed_point.fit_fixed_point

    def note(statistics: object, config: object, initial: GaussianPrior) -> object:
        made.append((initial, fit(statistics, config, initial)))
        return made[-1][1]

    monkeypatch.setattr(repeated_fixed_point, "fit_fixed_point", note)
    begun = start(data, device)
    learned = repeat_fits(every_epochs=every_epochs)
    state = continue_training(begun.state, begun.prior, data, device, learned=learned)
    assert len(made) == state.learner.steps == fits
    before = begun.prior
    for initial, result in made:
        assert torch.equal(initial.mean, before.mean)
        assert torch.equal(initial.variance, before.variance)
        before = result.prior
    assert torch.equal(state.learner.prior.mean, before.mean)
    due = [(epoch - 1) % every_epochs == 0 and epoch > 0 for epoch in range(5)]
    assert [row["prior_loss"] is not None for row in state.log] == due


@pytest.mark.parametrize("made", [5, 8, 9, 12, 17])
def test_a_resumed_training_with_fits_every_second_epoch_equals_one_that_was_not_cut(
    make_data, device, cut_and_resume, made
):
    data, learned = make_data(epochs=5), repeat_fits(every_epochs=2)
    assert_equal_states(cut_and_resume(data, made, learned), train_once(data, device, learned))


@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_fit_that_diverges_is_named_as_the_single_one_is(make_data, device, tmp_path, checkpointed):
    data = make_data()
    begun = start(data, device)
    config = repeat_fits(1e5, update="exact")
    with pytest.raises(FixedPointDiverged) as single:
        fit_fixed_point(begun.statistics, FixedPointConfig(weight=1e5, update="exact"), begun.prior)
    checkpoints = make_checkpoints(tmp_path, data) if checkpointed else None
    with pytest.raises(TrainingDiverged) as error:
        continue_training(begun.state, begun.prior, data, device, checkpoints, learned=config)
    assert str(error.value) == f"training: epoch 2, step 4: {single.value} (seed 3)"
    assert (error.value.quantity, error.value.class_index) == (single.value.quantity, single.value.class_index)
    assert len(error.value.log) == 1
