"""The training loop: split or not it gives the same, and it learns."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from nfpi.config.flows import TrainingConfig
from nfpi.flows import FlowError, MatrixExponentialFlow
from nfpi.priors import FixedPointConfig, GaussianPrior, fit_fixed_point, initial_prior
from nfpi.runtime.divergence import TrainingDiverged
from nfpi.training.batches import TrainingData
from nfpi.training.flow import continue_training, start_training

from .conftest import (
    CPU,
    SEED,
    assert_equal_states,
    describe_flow,
    make_checkpoints,
    replace_config,
    start,
    train_in_one_go,
    train_once,
)


@pytest.mark.parametrize("epochs_before_the_fit", [1, 2])
@pytest.mark.parametrize(("shape", "augmentation"), [((1, 8, 8), "shift"), ((3, 8, 8), "released")])
def test_split_and_unsplit_training_agree_bit_for_bit(make_data, device, shape, augmentation, epochs_before_the_fit):
    data = make_data(shape, augmentation=augmentation, fit_after_epochs=epochs_before_the_fit)
    begun = start(data, device)
    assert begun.state.step == epochs_before_the_fit * data.steps_per_epoch
    state = continue_training(begun.state, begun.prior, data, device)
    assert state.step == 12
    assert_equal_states(state, train_once(data, device))


def test_every_weight_goes_on_from_the_same_start(make_data, device):
    """Nothing of the part after the fit reaches back into the part before it."""
    short, long = (start(make_data(epochs=epochs, evaluate_every=1), device) for epochs in (2, 9))
    assert_equal_states(short.state, long.state)
    assert torch.equal(short.statistics.mean, long.statistics.mean)


def test_the_global_generator_changes_nothing(make_data, device):
    data = make_data(epochs=2)
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        states.append(train_in_one_go(data, device))
    assert_equal_states(*states)


@pytest.fixture
def steps(monkeypatch) -> list[tuple[torch.Tensor, float, float]]:
    """One weight tensor after every step, its learning rate, and the norm of its gradient."""
    seen: list[tuple[torch.Tensor, float, float]] = []
    step = torch.optim.Adamax.step

    def note(optimizer: torch.optim.Adamax, *arguments: object, **options: object) -> object:
        group = optimizer.param_groups[0]
        gradients = [p.grad.flatten() for p in group["params"] if p.grad is not None]
        norm = float(torch.cat(gradients).norm())
        result = step(optimizer, *arguments, **options)
        seen.append((group["params"][0].detach().clone(), group["lr"], norm))
        return result

    monkeypatch.setattr(torch.optim.Adamax, "step", note)
    return seen


@pytest.mark.parametrize(("ema_decay", "ema_power"), [(0.9999, 0.75), (0.6, 0.75), (0.9999, 0.5)])
def test_the_average_follows_its_formula_from_the_second_epoch_on(make_data, device, steps, ema_decay, ema_power):
    data = make_data(ema_decay=ema_decay, ema_power=ema_power)
    state = train_in_one_go(data, device)
    weights = [weight.double() for weight, *_ in steps]
    assert len(weights) == 12
    average = weights[data.steps_per_epoch]
    for n, weight in enumerate(weights[data.steps_per_epoch :]):
        decay = min(ema_decay, 1 - (1 + n) ** -ema_power)
        average = decay * average + (1 - decay) * weight
    averaged = next(state.averaged_flow.parameters())
    torch.testing.assert_close(averaged.double(), average, rtol=1e-6, atol=1e-7)
    assert (averaged - next(state.flow.parameters())).abs().max() > 1e-3  # not the weights themselves


def test_learning_rates_warm_up_linearly(make_data, device, steps):
    state = train_in_one_go(make_data(learning_rate=0.006, warmup_steps=6), device)
    assert [rate for _, rate, _ in steps] == pytest.approx([0.001 * min(6, n) for n in range(1, 13)])
    assert [row["learning_rate"] for row in state.log] == pytest.approx([0.004, 0.006, 0.006])
    steps.clear()
    train_in_one_go(make_data(learning_rate=0.006, warmup_steps=0), device)
    assert {rate for _, rate, _ in steps} == {0.006}


def test_the_gradient_is_clipped_on_request(make_data, device, steps):
    train_in_one_go(make_data(epochs=2), device)
    assert min(norm for *_, norm in steps) > 1
    steps.clear()
    train_in_one_go(make_data(epochs=2, gradient_clip=0.5), device)
    assert [norm for *_, norm in steps] == pytest.approx([0.5] * len(steps), rel=1e-4)


def test_the_likelihood_falls_and_the_classes_separate(make_images, device):
    """Classes one cannot tell at chance (1 in 4), after a start that knows their means."""
    config = TrainingConfig(
        epochs=10,
        batch_size=32,
        learning_rate=2e-3,
        warmup_steps=5,
        augmentation="none",
        evaluate_every=1,
        initialization_images=64,
    )
    train = make_images(classes=4, per_class=60, noise=60)
    data = TrainingData(train, make_images(classes=4, per_class=40, noise=60, seed=1), config, CPU)
    begun = start(data, device)
    log = continue_training(begun.state, begun.prior, data, device).log
    assert log[-1]["train_bits_per_dim"] < log[0]["train_bits_per_dim"]
    assert log[-1]["validation_bits_per_dim"] < log[0]["validation_bits_per_dim"]
    assert log[-1]["validation_nf_acc"] > 60


def test_validation_is_scored_when_it_is_due(make_data, device):
    log = train_in_one_go(make_data(epochs=5, evaluate_every=2), device).log
    assert [row["epoch"] for row in log if row["validation_nf_acc"] is not None] == [2, 4, 5]


def test_training_bits_per_dim_are_those_of_the_images_under_the_weights(make_data, device, monkeypatch):
    """With a step too small to move anything the mean over the epoch is the mean over the images."""
    data = make_data(learning_rate=1e-30, warmup_steps=0, augmentation="none")
    begun = start(replace_config(data, fit_after_epochs=0), device)
    flow, prior = begun.state.flow, begun.prior
    total = 0.0
    with torch.no_grad():
        for x, labels in data.stream(SEED, 0):
            z, log_abs_det = flow(x)
            normal = torch.distributions.Normal(prior.mean[labels], prior.variance[labels].sqrt())
            total -= float((normal.log_prob(z.flatten(1)).sum(1) + log_abs_det).sum())
    expected = total / 60 / 64 / np.log(2) + 7
    log = continue_training(begun.state, prior, data, device).log
    assert log[0]["train_bits_per_dim"] == pytest.approx(expected, rel=1e-5)


def test_the_initial_gaussians_are_those_before_the_first_step(make_data, device):
    before = start(make_data(fit_after_epochs=0), device)
    assert before.state.step == 0
    begun, identity = start(make_data(), device), start(make_data(), device, "identity")
    for prior in (begun.prior, identity.prior):
        assert torch.equal(prior.mean, before.statistics.mean)
    assert torch.equal(begun.prior.variance, before.statistics.variance)
    assert torch.equal(identity.prior.variance, torch.ones(3, 64, dtype=torch.float64))
    assert begun.prior.mean.dtype == torch.float64
    assert not torch.equal(begun.statistics.mean, before.statistics.mean)


def test_random_means_are_drawn_once_for_each_seed(make_data, device):
    statistics = start(make_data(fit_after_epochs=0), device).statistics
    begun = start(make_data(), device, "random").prior
    assert torch.equal(begun.variance, torch.ones(3, 64, dtype=torch.float64))
    assert torch.equal(begun.mean, initial_prior(statistics, "random", SEED).mean)
    other = initial_prior(statistics, "random", SEED + 1).mean
    for mean in (begun.mean, other):
        assert mean.shape == (3, 64)
        assert mean.dtype == torch.float64
        assert abs(mean.mean()) < 0.3  # of 192 numbers
        assert abs(mean.std() - 1) < 0.2
    assert abs(torch.corrcoef(torch.cat([begun.mean, other]))).fill_diagonal_(0).max() < 0.6


@pytest.mark.parametrize("constant", [0, 255])
def test_a_start_on_images_with_constant_pixels_stays_finite(make_images, device, constant):
    images = make_images()
    images.images[:, :3] = constant
    config = TrainingConfig(epochs=2, batch_size=16, augmentation="none", initialization_images=32)
    begun = start(TrainingData(images, images, config, CPU), device)
    for tensor in begun.state.flow.state_dict().values():
        assert torch.isfinite(tensor).all()
    begun.statistics.check()
    assert np.isfinite(begun.state.log[0]["train_bits_per_dim"])


@pytest.mark.parametrize("coupling", ["matrix_exponential", "affine"])
@pytest.mark.parametrize("rate", [1e3, 1e20])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_loss_that_is_not_finite_names_step_and_settings(make_data, device, tmp_path, coupling, rate, checkpointed):
    data = make_data(learning_rate=rate, warmup_steps=0, gradient_clip=0)
    flow = describe_flow(data, coupling=coupling)
    begun = start_training(replace_config(data, fit_after_epochs=0), flow, "data", SEED, device)
    checkpoints = make_checkpoints(tmp_path, data) if checkpointed else None
    with pytest.raises(TrainingDiverged) as error:
        continue_training(begun.state, begun.prior, data, device, checkpoints)
    message = str(error.value)
    assert re.search(r"by step [1-8] ", message)
    assert error.value.log == begun.state.log  # the first epoch is not ended
    assert f"learning_rate (now {rate:g})" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 32}, r"state.*4"),
        ({"shape": (3, 8, 8)}, r"images.*\(3, 8, 8\)"),
    ],
)
def test_a_state_of_other_images_or_batches_is_refused(make_data, device, changes, message):
    begun = start(make_data(), device)
    with pytest.raises(ValueError, match=message):
        continue_training(begun.state, begun.prior, make_data(**changes), device)


@pytest.mark.parametrize("size", [(2, 64), (3, 48)])
def test_a_prior_of_other_images_is_refused(make_data, device, size):
    data = make_data()
    prior = GaussianPrior(torch.zeros(size), torch.ones(size))
    with pytest.raises(ValueError, match=r"prior.*\(3, 64\)"):
        continue_training(start(data, device).state, prior, data, device)


def test_a_short_run_keeps_its_digits(make_images, device):
    """Start, fit and training give the numbers that they always gave, up to the rounding of other processors."""
    settings = {"epochs": 4, "batch_size": 16, "warmup_steps": 6, "initialization_images": 40, "augmentation": "none"}
    config = TrainingConfig(**settings, evaluate_every=2)
    data = TrainingData(make_images((3, 8, 8)), make_images((3, 8, 8), per_class=10, seed=1), config, CPU)
    begun = start(data, device)
    fitted = fit_fixed_point(begun.statistics, FixedPointConfig(weight=100.0), begun.prior)
    assert fitted.iterations == 8
    assert fitted.residuals[-1].tolist() == pytest.approx([0.0045363, 0.0586907], rel=1e-3)
    log = continue_training(begun.state, fitted.prior, data, device).log
    bits = [row["train_bits_per_dim"] for row in log]
    assert bits == pytest.approx([6.0551214, 6.1802268, 6.1109667, 6.0474162], abs=1e-4)
    assert log[-1]["validation_bits_per_dim"] == pytest.approx(6.1965605, abs=1e-4)


def test_a_flow_that_breaks_its_contract_is_not_trained(make_data, device, monkeypatch):
    """A log-determinant (B, 1) would broadcast to a loss of all pairs of images, which is a number too."""
    forward = MatrixExponentialFlow.forward

    def forward_with_column(flow, x):
        z, log_abs_det = forward(flow, x)
        return z, log_abs_det[:, None]

    monkeypatch.setattr(MatrixExponentialFlow, "forward", forward_with_column)
    with pytest.raises(FlowError, match=r"\(4, 1\)"):
        start(make_data(), device)
