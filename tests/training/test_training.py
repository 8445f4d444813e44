from __future__ import annotations

import re
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nfpi.config import TrainingConfig
from nfpi.data.store import ImageSet
from nfpi.flows import MatrixExponentialFlow
from nfpi.priors import (
    ClassStatistics,
    GaussianLearner,
    GaussianPrior,
    GradientDescentConfig,
    ValueRange,
    initial_prior,
)
from nfpi.runtime.checkpoints import Checkpoints
from nfpi.runtime.devices import Device, make_device
from nfpi.runtime.signals import Interrupted, Interruption
from nfpi.runtime.tensors import FormatError, load_tensors, save_tensors
from nfpi.training import epoch_prior, loop
from nfpi.training.batches import STATISTICS_EPOCH, TrainingData, latent_statistics
from nfpi.training.divergence import TrainingDiverged, require_finite
from nfpi.training.epoch_prior import LearnedPrior, prior_of_epoch
from nfpi.training.loop import InitialState, continue_training, start_training
from nfpi.training.state import TrainingState

LEARNED = {
    "epoch": GradientDescentConfig(weight=20.0),
    "step": GradientDescentConfig(weight=20.0, every="step", learning_rate=0.01),
    "released": GradientDescentConfig(weight=20.0, objective="released", fit_variance=False),
}
SETTINGS = {"num_flows": [2, 1], "num_blocks": [1, 1], "hidden_channels": [8, 8]}
CPU = torch.device("cpu")
SEED = 3


@pytest.fixture(scope="module")
def device() -> Device:
    return make_device()


def flow_of(data: TrainingData, **changes: object) -> dict[str, Any]:
    return {"kind": "matrix_exponential", "shape": list(data.train.shape), "settings": SETTINGS | changes}


@pytest.fixture(scope="module")
def make_data(make_images: Callable[..., ImageSet]) -> Callable[..., TrainingData]:
    """60 training images in 4 batches of 16, the last one smaller; 30 validation images."""

    def make(shape: tuple[int, int, int] = (1, 8, 8), **changes: object) -> TrainingData:
        settings = {
            "epochs": 3,
            "batch_size": 16,
            "warmup_steps": 6,
            "initialization_images": 40,
            "augmentation": "shift",
            "evaluate_every": 2,
            "checkpoint_minutes": 1e-9,
        }
        config = TrainingConfig(**(settings | changes))
        return TrainingData(make_images(shape), make_images(shape, per_class=10, seed=1), config, CPU)

    return make


def configured(data: TrainingData, **changes: object) -> TrainingData:
    return replace(data, config=TrainingConfig(**(data.config.model_dump() | changes)))


def start(data: TrainingData, device: Device, kind: str = "data") -> InitialState:
    return start_training(data, flow_of(data), kind, SEED, device)


def unsplit(data: TrainingData, device: Device, learned: GradientDescentConfig | None = None) -> TrainingState:
    """All epochs in one go, under the initial Gaussians, which may be learned once `data` says so."""
    begun = start(configured(data, fit_after_epochs=0), device)
    return continue_training(begun.state, begun.prior, data, device, learned=learned)


def assert_equal_states(one: TrainingState, other: TrainingState) -> None:
    """Bit for bit; the log too, but for the time it took."""
    assert one.step == other.step
    for name in ("flow", "averaged_flow", "optimizer"):
        left, right = getattr(one, name).state_dict(), getattr(other, name).state_dict()
        if name == "optimizer":
            left, right = flat_moments(left), flat_moments(right)
        assert left.keys() == right.keys()
        assert len(left) > 0
        for key, value in left.items():
            assert torch.equal(value, right[key]), f"{name}: {key}"
    assert timeless(one.log) == timeless(other.log)
    assert torch.equal(one.epoch_nll, other.epoch_nll)
    assert_equal_learners(one.learner, other.learner)


def assert_equal_learners(one: GaussianLearner | None, other: GaussianLearner | None) -> None:
    """Gaussians, moments and counts, bit for bit; or none on both sides."""
    if one is None or other is None:
        assert one is other
        return
    assert (one.config, one.steps, one.loss) == (other.config, other.steps, other.loss)
    for state_of in (
        lambda learner: learner.state_dict(),
        lambda learner: flat_moments(learner.optimizer.state_dict()),
    ):
        left, right = state_of(one), state_of(other)
        assert left.keys() == right.keys()
        for key, value in left.items():
            assert torch.equal(value, right[key]), f"learner: {key}"


def flat_moments(state: dict) -> dict[str, torch.Tensor]:
    return {f"{index}.{key}": value for index, moments in state["state"].items() for key, value in moments.items()}


def timeless(log: list) -> list:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in log]


# ---- in parts and in one ------------------------------------------------------------------------------------


@pytest.mark.parametrize("epochs_before_the_fit", [1, 2])
@pytest.mark.parametrize(("shape", "augmentation"), [((1, 8, 8), "shift"), ((3, 8, 8), "released")])
def test_split_and_unsplit_training_agree_bit_for_bit(make_data, device, shape, augmentation, epochs_before_the_fit):
    data = make_data(shape, augmentation=augmentation, fit_after_epochs=epochs_before_the_fit)
    begun = start(data, device)
    assert begun.state.step == epochs_before_the_fit * data.steps_per_epoch
    state = continue_training(begun.state, begun.prior, data, device)
    assert state.step == 12
    assert_equal_states(state, unsplit(data, device))


def test_the_state_file_between_the_parts_changes_nothing(make_data, device, tmp_path):
    data = make_data()
    begun = start(data, device)
    begun.state.save(tmp_path / "state.safetensors", {"start": "data"})
    torch.manual_seed(123)  # what another process would find
    state, header = TrainingState.load(tmp_path / "state.safetensors", data.config, data.steps_per_epoch, CPU)
    assert header["start"] == "data"
    assert_equal_states(state, begun.state)
    state = continue_training(state, begun.prior, data, device)
    assert_equal_states(state, unsplit(data, device))


def test_every_weight_goes_on_from_the_same_start(make_data, device):
    """Nothing of the part after the fit reaches back into the part before it."""
    short, long = (start(make_data(epochs=epochs, evaluate_every=1), device) for epochs in (2, 9))
    assert_equal_states(short.state, long.state)
    assert torch.equal(short.statistics.mean, long.statistics.mean)


def test_another_prior_or_another_seed_makes_a_difference(make_data, device):
    data = make_data()
    begun = start(data, device)
    wider = GaussianPrior(begun.prior.mean, 2 * begun.prior.variance)
    state = continue_training(begun.state, wider, data, device)
    reference = unsplit(data, device)
    assert_some_differ(state, reference)
    other = start_training(data, flow_of(data), "data", SEED + 1, device)
    assert_some_differ(other.state, start(data, device).state)


def assert_some_differ(one: TrainingState, other: TrainingState) -> None:
    pairs = zip(one.flow.parameters(), other.flow.parameters(), strict=True)
    assert any(not torch.equal(left, right) for left, right in pairs)


# ---- checkpoints --------------------------------------------------------------------------------------------


class Cut(Exception):
    """The machine is taken away."""


def checkpoints_in(folder: Path, data: TrainingData) -> Checkpoints:
    return Checkpoints(folder, "f" * 64, data.config.checkpoint_minutes)


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a training with checkpoints after every step; it ends with the one of a given step, the given time over."""

    def run(made: int, function: Callable[..., object], *arguments: object, times: int = 1, **options: object) -> None:
        save, left = Checkpoints.save, iter(range(times - 1))

        def save_and_cut(checkpoints: Checkpoints, step: int, *content: object) -> None:
            save(checkpoints, step, *content)
            if step == made and next(left, None) is None:
                raise Cut

        with monkeypatch.context() as patch:
            patch.setattr(Checkpoints, "save", save_and_cut)
            with pytest.raises(Cut):
                function(*arguments, **options)
        torch.manual_seed(5)

    return run


@pytest.mark.parametrize(("made", "times"), [(5, 1), (8, 1), (8, 2), (9, 1), (12, 2)])
def test_a_resumed_run_equals_one_that_was_not_cut(make_data, device, tmp_path, cut, made, times):
    """Cut after `made` steps; an epoch has four, and one was trained before the fit. Its end is kept twice."""
    data = make_data()
    begun, again = start(data, device), start(data, device)
    checkpoints = checkpoints_in(tmp_path, data)
    cut(made, continue_training, begun.state, begun.prior, data, device, checkpoints, times=times)
    checkpoints = checkpoints_in(tmp_path, data)
    state = continue_training(again.state, again.prior, data, device, checkpoints)
    assert_equal_states(state, unsplit(data, device))
    assert checkpoints.step == 12


@pytest.mark.parametrize("made", [1, 4, 7])
def test_a_resumed_start_equals_one_that_was_not_cut(make_data, device, tmp_path, cut, made):
    data = make_data(fit_after_epochs=2)
    whole = start(data, device)
    cut(made, start_training, data, flow_of(data), "data", SEED, device, checkpoints_in(tmp_path, data))
    resumed = start_training(data, flow_of(data), "data", SEED, device, checkpoints_in(tmp_path, data))
    assert_equal_states(whole.state, resumed.state)
    for name in ("mean", "variance"):
        assert torch.equal(getattr(whole.prior, name), getattr(resumed.prior, name))
        assert torch.equal(getattr(whole.statistics, name), getattr(resumed.statistics, name))


def test_a_run_cut_while_it_evaluates_goes_on_too(make_data, device, tmp_path, monkeypatch):
    """The validation at the end of an epoch takes long on a large data set."""
    data = make_data()
    begun, again = start(data, device), start(data, device)

    def cut(*_: object, **__: object) -> None:
        raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(loop, "evaluate_flow", cut)
        with pytest.raises(Cut):
            continue_training(begun.state, begun.prior, data, device, checkpoints_in(tmp_path, data))
    state = continue_training(again.state, again.prior, data, device, checkpoints_in(tmp_path, data))
    assert_equal_states(state, unsplit(data, device))


@pytest.mark.parametrize(
    ("where", "how"), [("step", None), ("step", "step"), ("evaluation", None), ("statistics", "epoch")]
)
def test_a_signal_keeps_the_state_wherever_it_comes(make_data, device, tmp_path, monkeypatch, where, how):
    data = make_data(checkpoint_minutes=60.0)
    begun, again, learned = start(data, device), start(data, device), LEARNED.get(how)
    module, name = {
        "step": (loop, "negative_log_likelihood"),
        "evaluation": (loop, "evaluate_flow"),
        "statistics": (epoch_prior, "latent_statistics"),
    }[where]
    function, calls = getattr(module, name), iter(range(1 if where != "step" else 2))

    def signalled(*arguments: object, **options: object) -> object:
        if next(calls, None) is None:
            signal.raise_signal(signal.SIGUSR1)
            if where != "step":
                pytest.fail("went on")
        return function(*arguments, **options)

    monkeypatch.setattr(module, name, signalled)
    if where == "evaluation":
        next(calls)  # there is one only
    with pytest.raises(Interrupted, match=rf"SIGUSR1: kept step \d+ in {tmp_path}"):
        continue_training(begun.state, begun.prior, data, device, checkpoints_in(tmp_path, data), learned=learned)
    monkeypatch.undo()
    checkpoints = checkpoints_in(tmp_path, data)
    assert checkpoints.load() is not None
    assert checkpoints.step == {"step": 7, "evaluation": 8, "statistics": 8}[where]
    state = continue_training(again.state, again.prior, data, device, checkpoints, learned=learned)
    assert_equal_states(state, unsplit(data, device, learned))


def test_between_epochs_no_checkpoint_comes_before_its_time(make_data, device, tmp_path, monkeypatch):
    data = make_data(checkpoint_minutes=60.0)
    begun, made, save = start(data, device), [], Checkpoints.save

    def note(checkpoints: Checkpoints, step: int, *content: object) -> None:
        save(checkpoints, step, *content)
        made.append(step)

    monkeypatch.setattr(Checkpoints, "save", note)
    continue_training(begun.state, begun.prior, data, device, checkpoints_in(tmp_path, data))
    assert made
    assert {8, 12}.issuperset(made)


def test_what_is_no_training_state_is_refused_in_one_line(make_data, device, tmp_path):
    data = make_data()
    state = start(data, device).state
    file = tmp_path / "state.safetensors"
    save_tensors(file, {"mean": torch.zeros(2, 2)}, {"seed": 0})
    without_moments = {f"flow.{key}": value for key, value in state.flow.state_dict().items()}
    for tensors in ({"mean": torch.zeros(2, 2)}, without_moments):
        save_tensors(file, tensors, {"seed": 0, "step": 1, "log": [], "flow": state.flow.description})
        with pytest.raises(FormatError, match=r"state\.safetensors: expected") as error:
            TrainingState.load(file, data.config, data.steps_per_epoch, CPU)
        assert "\n" not in str(error.value)


# ---- Gaussians that are learned -----------------------------------------------------------------------------


@pytest.mark.parametrize("how", LEARNED)
@pytest.mark.parametrize("epochs_before", [1, 2])
def test_learning_in_parts_and_in_one_agree_bit_for_bit(make_data, device, tmp_path, how, epochs_before):
    data = make_data(fit_after_epochs=epochs_before)
    begun = start(data, device)
    begun.state.save(tmp_path / "state.safetensors", {})
    state, _ = TrainingState.load(tmp_path / "state.safetensors", data.config, data.steps_per_epoch, CPU)
    state = continue_training(state, begun.prior, data, device, learned=LEARNED[how])
    assert state.learner.steps == (3 - epochs_before) * (4 if how == "step" else 1)
    assert_equal_states(state, unsplit(data, device, LEARNED[how]))


@pytest.mark.parametrize("how", LEARNED)
@pytest.mark.parametrize("made", [5, 8, 10])
def test_a_resumed_learner_equals_one_that_was_not_cut(make_data, device, tmp_path, cut, how, made):
    data, learned = make_data(), LEARNED[how]
    begun, again = start(data, device), start(data, device)
    cut(
        made,
        continue_training,
        begun.state,
        begun.prior,
        data,
        device,
        checkpoints_in(tmp_path, data),
        learned=learned,
    )
    checkpoints = checkpoints_in(tmp_path, data)
    state = continue_training(again.state, again.prior, data, device, checkpoints, learned=learned)
    assert_equal_states(state, unsplit(data, device, learned))


def test_a_step_that_was_made_before_the_cut_is_not_made_again(make_data, device, tmp_path):
    """Cut between the step of the Gaussians and the first batch of their epoch."""
    data, file = make_data(), tmp_path / "state.safetensors"
    begun = start(data, device)
    begun.state.learner = GaussianLearner(begun.prior, LEARNED["epoch"])
    prior_of_epoch(begun.state, begun.prior, data, Interruption())
    assert begun.state.learner.steps == 1
    begun.state.save(file, {})
    state, _ = TrainingState.load(file, data.config, data.steps_per_epoch, CPU)
    state = continue_training(state, begun.prior, data, device, learned=LEARNED["epoch"])
    assert_equal_states(state, unsplit(data, device, LEARNED["epoch"]))


@pytest.mark.parametrize("how", ["epoch", "released"])
def test_an_epoch_is_trained_under_the_gaussians_of_the_step_before_it(make_data, device, how):
    """The first step is down the objective of the statistics that the start left."""
    data = make_data(epochs=2)
    begun, again = start(data, device), start(data, device)
    by_hand, nll_range = GaussianLearner(begun.prior, LEARNED[how]), None
    if how == "released":
        nll_range = ValueRange()
        prior = by_hand.prior.to(dtype=torch.float32)
        latent_statistics(begun.state.flow, data, SEED, prior, nll_range)
    by_hand.descend(begun.statistics, 0.0, nll_range)
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
    learner = GaussianLearner(begun.prior, config)
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
    learner = GaussianLearner(begun.prior, LEARNED["step"])
    with torch.no_grad():
        pairs = [(begun.state.flow(x)[0], y) for x, y in data.stream(SEED, STATISTICS_EPOCH)]
    z, labels = torch.cat([z for z, _ in pairs]), torch.cat([y for _, y in pairs])
    learned = LearnedPrior(learner, CPU)
    loss = learned.loss(-learned.current().log_prob_of(z, labels))
    assert loss.item() == pytest.approx(learner.objective(begun.statistics).item() / 3, rel=1e-5)


@pytest.mark.parametrize("how", LEARNED)
def test_the_validation_is_under_the_gaussians_as_they_are(make_data, device, monkeypatch, how):
    seen = []
    evaluate = loop.evaluate_flow

    def note(flow: object, prior: GaussianPrior, *arguments: object, **options: object) -> object:
        seen.append(prior)
        return evaluate(flow, prior, *arguments, **options)

    monkeypatch.setattr(loop, "evaluate_flow", note)
    state = unsplit(make_data(evaluate_every=1), device, LEARNED[how])
    assert len(seen) == 3
    assert not torch.equal(seen[1].mean, seen[2].mean)
    assert torch.equal(seen[2].mean, state.learner.prior.mean.float())
    assert torch.equal(seen[2].variance, state.learner.prior.variance.float())


@pytest.mark.parametrize(("how", "passes"), [("epoch", 2), ("step", 0), ("released", 2)])
def test_learning_costs_one_pass_an_epoch(make_data, device, monkeypatch, how, passes):
    data = make_data()
    begun = start(data, device)
    epochs = []
    stream = TrainingData.stream

    def note(data: TrainingData, seed: int, epoch: int, *arguments: int) -> object:
        epochs.append(epoch)
        return stream(data, seed, epoch, *arguments)

    monkeypatch.setattr(TrainingData, "stream", note)
    state = continue_training(begun.state, begun.prior, data, device, learned=LEARNED[how])
    assert sorted(epochs) == [1, 2, *[STATISTICS_EPOCH] * passes]
    assert [row["prior_loss"] is None for row in state.log] == [True, False, False]
    assert {tuple(row) for row in state.log} == {tuple(begun.state.log[0])}


def test_step_sizes_run_from_the_first_step_to_the_end_of_training(make_data, device, monkeypatch):
    seen = []
    step = GaussianLearner.step
    monkeypatch.setattr(GaussianLearner, "step", lambda learner, u: (seen.append(u), step(learner, u))[1])
    unsplit(make_data(epochs=5), device, LEARNED["epoch"])
    assert seen == [0.0, 0.25, 0.5, 0.75]
    seen.clear()
    unsplit(make_data(), device, LEARNED["step"])
    assert seen == [step / 8 for step in range(8)]


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


@pytest.mark.parametrize("how", ["epoch", "step"])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_gaussians_that_are_not_finite_name_epoch_class_and_quantity(make_data, device, tmp_path, how, checkpointed):
    """Classes 1 and 2 coincide, so that π is 0."""
    data = make_data()
    begun = start(data, device)
    mean = begun.prior.mean.clone()
    mean[2] = mean[1]
    checkpoints = checkpoints_in(tmp_path, data) if checkpointed else None
    with pytest.raises(TrainingDiverged) as error:
        continue_training(
            begun.state, GaussianPrior(mean, torch.ones_like(mean)), data, device, checkpoints, learned=LEARNED[how]
        )
    message = str(error.value)
    assert "epoch 2, step" in message
    assert re.search(r"learned prior: mean is not finite in class [0-2] \(seed 3\)", message)
    assert "\n" not in message


def test_an_objective_that_is_not_finite_is_named(make_data, device):
    data = make_data()
    begun = start(data, device)
    begun.state.learner = GaussianLearner(begun.prior, LEARNED["epoch"])
    begun.state.learner.loss = float("inf")
    with pytest.raises(TrainingDiverged, match="epoch 2, step 4: learned prior: objective is not finite"):
        require_finite(begun.state, data.config, 2)


@pytest.mark.parametrize("other", [None, GradientDescentConfig(weight=21.0)])
def test_a_learner_goes_on_as_it_began(make_data, device, other):
    data = make_data()
    state = unsplit(configured(data, epochs=2), device, LEARNED["epoch"])
    with pytest.raises(ValueError, match="state: expected Gaussians learned by"):
        continue_training(state, start(data, device).prior, data, device, learned=other)


def test_a_learner_of_another_program_is_refused_in_one_line(make_data, device, tmp_path):
    data, file = make_data(), tmp_path / "state.safetensors"
    state = unsplit(configured(data, epochs=2), device, LEARNED["epoch"])
    state.save(file, {})
    tensors, header = load_tensors(file)
    header["learner"]["config"]["momentum"] = 0.9
    save_tensors(file, tensors, header)
    with pytest.raises(FormatError, match=r"state\.safetensors: expected a training state") as error:
        TrainingState.load(file, data.config, data.steps_per_epoch, CPU)
    assert "\n" not in str(error.value)


# ---- what it is independent of ------------------------------------------------------------------------------


def test_the_number_of_workers_changes_nothing(make_data, device):
    data = make_data((3, 8, 8), epochs=2, augmentation="released")
    assert_equal_states(unsplit(configured(data, workers=2), device), unsplit(data, device))


def test_the_global_generator_changes_nothing(make_data, device):
    data = make_data(epochs=2)
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        states.append(unsplit(data, device))
    assert_equal_states(*states)


# ---- the averaged weights and the learning rate -------------------------------------------------------------


@pytest.fixture
def weights_at_steps(monkeypatch) -> list[tuple[torch.Tensor, float]]:
    """One weight tensor before every step of the average's update, and the learning rate of the step."""
    seen: list[tuple[torch.Tensor, float]] = []
    step = torch.optim.Adamax.step

    def note(optimizer: torch.optim.Adamax, *arguments: object, **options: object) -> object:
        result = step(optimizer, *arguments, **options)
        group = optimizer.param_groups[0]
        seen.append((group["params"][0].detach().clone(), group["lr"]))
        return result

    monkeypatch.setattr(torch.optim.Adamax, "step", note)
    return seen


@pytest.mark.parametrize(("ema_decay", "ema_power"), [(0.9999, 0.75), (0.6, 0.75), (0.9999, 0.5)])
def test_the_average_follows_its_formula_from_the_second_epoch_on(
    make_data, device, weights_at_steps, ema_decay, ema_power
):
    data = make_data(ema_decay=ema_decay, ema_power=ema_power)
    state = unsplit(data, device)
    weights = [weight.double() for weight, _ in weights_at_steps]
    assert len(weights) == 12
    average = weights[data.steps_per_epoch]
    for n, weight in enumerate(weights[data.steps_per_epoch :]):
        decay = min(ema_decay, 1 - (1 + n) ** -ema_power)
        average = decay * average + (1 - decay) * weight
    averaged = next(state.averaged_flow.parameters())
    torch.testing.assert_close(averaged.double(), average, rtol=1e-6, atol=1e-7)
    assert (averaged - next(state.flow.parameters())).abs().max() > 1e-3  # not the weights themselves


def test_the_average_is_the_weights_during_the_first_epoch(make_data, device):
    state = start(make_data(), device).state
    for averaged, weight in zip(state.averaged_flow.parameters(), state.flow.parameters(), strict=True):
        assert torch.equal(averaged, weight)
        assert averaged.data_ptr() != weight.data_ptr()


def test_learning_rates_warm_up_linearly(make_data, device, weights_at_steps):
    state = unsplit(make_data(learning_rate=0.006, warmup_steps=6), device)
    assert [rate for _, rate in weights_at_steps] == pytest.approx([0.001 * min(6, n) for n in range(1, 13)])
    assert [row["learning_rate"] for row in state.log] == pytest.approx([0.004, 0.006, 0.006])
    weights_at_steps.clear()
    unsplit(make_data(learning_rate=0.006, warmup_steps=0), device)
    assert {rate for _, rate in weights_at_steps} == {0.006}


def test_the_gradient_is_clipped_on_request(make_data, device, monkeypatch):
    norms = []
    step = torch.optim.Adamax.step

    def note(optimizer: torch.optim.Adamax, *arguments: object, **options: object) -> object:
        gradients = [p.grad for p in optimizer.param_groups[0]["params"] if p.grad is not None]
        norms.append(float(torch.cat([g.flatten() for g in gradients]).norm()))
        return step(optimizer, *arguments, **options)

    monkeypatch.setattr(torch.optim.Adamax, "step", note)
    unsplit(make_data(epochs=2), device)
    assert min(norms) > 1
    norms.clear()
    unsplit(make_data(epochs=2, gradient_clip=0.5), device)
    assert norms == pytest.approx([0.5] * len(norms), rel=1e-4)


# ---- that it learns -----------------------------------------------------------------------------------------


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
    assert [row["epoch"] for row in log] == list(range(1, 11))
    assert [row["step"] for row in log] == [8 * epoch for epoch in range(1, 11)]
    assert log[-1]["train_bits_per_dim"] < log[0]["train_bits_per_dim"]
    assert log[-1]["validation_bits_per_dim"] < log[0]["validation_bits_per_dim"]
    assert log[-1]["validation_nf_acc"] > 60


def test_validation_is_scored_when_it_is_due(make_data, device):
    log = unsplit(make_data(epochs=5, evaluate_every=2), device).log
    assert [row["epoch"] for row in log if row["validation_nf_acc"] is not None] == [2, 4, 5]


def test_training_bits_per_dim_are_those_of_the_images_under_the_weights(make_data, device, monkeypatch):
    """With a step too small to move anything the mean over the epoch is the mean over the images."""
    data = make_data(learning_rate=1e-30, warmup_steps=0, augmentation="none")
    begun = start(configured(data, fit_after_epochs=0), device)
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


# ---- the start ----------------------------------------------------------------------------------------------


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


# ---- when it runs away --------------------------------------------------------------------------------------


@pytest.mark.parametrize("coupling", ["matrix_exponential", "affine"])
@pytest.mark.parametrize("rate", [1e3, 1e20])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_loss_that_is_not_finite_names_step_and_knobs(make_data, device, tmp_path, coupling, rate, checkpointed):
    data = make_data(learning_rate=rate, warmup_steps=0, gradient_clip=0)
    flow = flow_of(data, coupling=coupling)
    begun = start_training(configured(data, fit_after_epochs=0), flow, "data", SEED, device)
    checkpoints = checkpoints_in(tmp_path, data) if checkpointed else None
    with pytest.raises(TrainingDiverged) as error:
        continue_training(begun.state, begun.prior, data, device, checkpoints)
    message = str(error.value)
    assert re.search(r"by step [1-8] ", message)
    assert re.search(r"; last good checkpoint: (none|step [1-7] in .*safetensors)$", message)
    assert f"seed {SEED}" in message
    assert f"learning_rate (now {rate:g})" in message
    assert "gradient_clip (now 0;" in message
    assert "\n" not in message


# ---- what does not belong together --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 32}, "state: expected 1 epochs of 2 steps, received step 4"),
        ({"shape": (3, 8, 8)}, r"images: expected \(C, H, W\) = \(1, 8, 8\) for this flow, received \(3, 8, 8\)"),
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
    with pytest.raises(ValueError, match=r"prior: expected \(K, D\) = \(3, 64\) for these images"):
        continue_training(start(data, device).state, prior, data, device)
