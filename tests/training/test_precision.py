"""What decides a result is computed in float32, in a training in bfloat16 too."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nfpi import ClassConditionalFlow
from nfpi.augmentation import augment_images
from nfpi.config.flows import NfaConfig
from nfpi.evaluation import evaluate_flow
from nfpi.flows.networks import ResidualNet
from nfpi.priors.repeated_fixed_point import RepeatedFixedPoint
from nfpi.runtime.device import Device, make_device
from nfpi.sampling import balanced_labels, sample_images
from nfpi.training.batches import TrainingData, latent_statistics
from nfpi.training.flow import InitialState, continue_training

from .conftest import LEARNED, SEED, start

STEP, NO_STEP = (True, torch.bfloat16), (False, torch.float32)
"""whether a gradient follows, and what the network of a coupling gives"""


@pytest.fixture
def mixed(monkeypatch: pytest.MonkeyPatch) -> Device:
    monkeypatch.setenv("NFPI_DEVICE", "cpu")
    return make_device("bf16-mixed")


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, torch.dtype]]:
    """Note each pass through the network of a coupling."""
    passes: list[tuple[bool, torch.dtype]] = []
    forward = ResidualNet.forward

    def noted(self: ResidualNet, x: Tensor) -> Tensor:
        assert x.dtype == torch.float32  # in a step as well: only the network rounds
        out = forward(self, x)
        passes.append((torch.is_grad_enabled(), out.dtype))
        return out

    monkeypatch.setattr(ResidualNet, "forward", noted)
    return passes


@pytest.fixture(scope="module")
def data(make_data: Callable[..., TrainingData]) -> TrainingData:
    return make_data(evaluate_every=1)


@pytest.fixture(scope="module")
def initial(data: TrainingData) -> InitialState:
    return start(data, make_device())


def statistics_of(initial: InitialState, data: TrainingData) -> tuple[Tensor, ...]:
    found = latent_statistics(initial.state.flow, data, SEED)
    return found.count, found.mean, found.variance


def test_the_initial_state_of_a_training_in_bfloat16_has_float32_statistics(data, mixed, seen):
    initial = start(data, mixed)
    assert {STEP, NO_STEP} == set(seen)
    assert seen[0] == seen[-1] == NO_STEP  # the initialisation, and the statistics that the Gaussians are fitted to
    found = initial.statistics
    for ours, expected in zip((found.count, found.mean, found.variance), statistics_of(initial, data), strict=True):
        assert torch.equal(ours, expected)


@pytest.mark.parametrize("learned", [None, *LEARNED])
def test_only_steps_of_a_training_are_bfloat16(data, mixed, seen, learned):
    initial = start(data, mixed)
    seen.clear()
    config = None if learned is None else LEARNED[learned]
    state = continue_training(initial.state, initial.prior, data, mixed, learned=config)
    assert {STEP, NO_STEP} == set(seen)  # steps; evaluations, and statistics that Gaussians are learned from
    last = state.log[-1]
    prior = initial.prior if state.learner is None else state.learner.prior
    scores = evaluate_flow(
        *(state.averaged_flow, prior, data.validation),
        **{"batch_size": data.config.batch_size, "seed": SEED, "domain": data.domain},
    )
    assert last["validation_nf_acc"] == scores.nf_acc
    assert last["validation_bits_per_dim"] == pytest.approx(scores.bits_per_dim, rel=1e-6)  # Gaussians were float32
    if isinstance(state.learner, RepeatedFixedPoint):
        assert state.learner.prior.mean.dtype == torch.float64


def test_steps_in_bfloat16_differ_from_those_in_float32(data, mixed, initial):
    """Otherwise nothing of this file could fail."""
    rounded = start(data, mixed)
    assert rounded.state.step == initial.state.step
    assert not torch.equal(rounded.statistics.mean, initial.statistics.mean)
    torch.testing.assert_close(rounded.statistics.mean, initial.statistics.mean, rtol=0.05, atol=0.05)


# ---- whoever calls ------------------------------------------------------------------------------------------


def evaluated(initial: InitialState, data: TrainingData) -> tuple[Tensor, ...]:
    scores = evaluate_flow(
        *(initial.state.flow, initial.prior, data.train),
        **{"batch_size": 16, "seed": SEED, "domain": data.domain},
    )
    return scores.log_prob, torch.tensor([scores.nf_acc, scores.bits_per_dim])


def sampled(initial: InitialState, data: TrainingData) -> tuple[Tensor, ...]:
    labels = balanced_labels(3, 10)
    settings = {"temperature": 1.0, "seed": SEED, "batch_size": 16, "domain": data.domain}
    return tuple(images for images, _ in sample_images(initial.state.flow, initial.prior, labels, **settings))


def augmented(initial: InitialState, data: TrainingData) -> tuple[Tensor, ...]:
    settings = {"seed": SEED, "domain": data.domain}
    made = augment_images(initial.state.flow, data.train, NfaConfig(axes=4, variants=2), **settings)
    return tuple(variants for _, variants in made)


def used(initial: InitialState, data: TrainingData) -> tuple[Tensor, ...]:
    """All that a model does."""
    noted = {key: data.train.meta.get(key, "uint8") for key in ("name", "classes", "dtype", "extra")}
    config = {"seed": SEED, "training": data.config.model_dump(), "data": noted}
    model = ClassConditionalFlow(initial.state.averaged_flow, initial.prior, config)
    images, labels = data.train.images[:30], data.train.labels[:30]
    latents = model.encode(images)
    found = (
        *(model.log_prob(images), model.bits_per_dim(images), latents, model.decode(latents)),
        model.sample(labels, generator=torch.Generator().manual_seed(0)),
        model.augment(images, labels, axes=4, generator=torch.Generator().manual_seed(0)),
    )
    return tuple(map(torch.as_tensor, found))


@pytest.mark.parametrize("compute", [statistics_of, evaluated, sampled, augmented, used])
def test_what_is_called_from_autocast_is_float32(initial, data, compute):
    alone = compute(initial, data)
    with torch.autocast("cpu", torch.bfloat16):
        inside = compute(initial, data)
    for one, other in zip(alone, inside, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
