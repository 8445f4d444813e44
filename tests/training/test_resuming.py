"""Trainings that are interrupted and resumed equal those that were not."""

from __future__ import annotations

import signal

import pytest
import torch

from nfpi.runtime.checkpoints import Checkpoints
from nfpi.runtime.signals import Interrupted
from nfpi.training import epoch_prior, flow_training, likelihood
from nfpi.training.flow import continue_training, start_training

from .conftest import LEARNED, SEED, Cut, assert_equal_states, describe_flow, make_checkpoints, start, train_once


@pytest.mark.parametrize(("made", "times"), [(5, 1), (8, 1), (8, 2), (9, 1), (12, 2)])
def test_a_resumed_run_equals_one_that_was_not_cut(make_data, device, cut_and_resume, made, times):
    """Cut after `made` steps; an epoch has four, and one was trained before the fit. Its end is kept twice."""
    data = make_data()
    assert_equal_states(cut_and_resume(data, made, times=times), train_once(data, device))


@pytest.mark.parametrize("made", [1, 4, 7])
def test_a_resumed_start_equals_one_that_was_not_cut(make_data, device, tmp_path, cut, made):
    data = make_data(fit_after_epochs=2)
    whole = start(data, device)
    cut(made, start_training, data, describe_flow(data), "data", SEED, device, make_checkpoints(tmp_path, data))
    resumed = start_training(data, describe_flow(data), "data", SEED, device, make_checkpoints(tmp_path, data))
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
        patch.setattr(flow_training, "evaluate_flow", cut)
        with pytest.raises(Cut):
            continue_training(begun.state, begun.prior, data, device, make_checkpoints(tmp_path, data))
    state = continue_training(again.state, again.prior, data, device, make_checkpoints(tmp_path, data))
    assert_equal_states(state, train_once(data, device))


@pytest.mark.parametrize(
    ("where", "how"), [("step", None), ("step", "step"), ("evaluation", None), ("statistics", "epoch")]
)
def test_a_signal_keeps_the_state_wherever_it_comes(make_data, device, tmp_path, monkeypatch, where, how):
    data = make_data(checkpoint_minutes=60.0)
    begun, again, learned = start(data, device), start(data, device), LEARNED.get(how)
    module, name = {
        "step": (likelihood, "negative_log_likelihood"),
        "evaluation": (flow_training, "evaluate_flow"),
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
        continue_training(begun.state, begun.prior, data, device, make_checkpoints(tmp_path, data), learned=learned)
    monkeypatch.undo()
    checkpoints = make_checkpoints(tmp_path, data)
    assert checkpoints.load() is not None
    assert checkpoints.step == {"step": 7, "evaluation": 8, "statistics": 8}[where]
    state = continue_training(again.state, again.prior, data, device, checkpoints, learned=learned)
    assert_equal_states(state, train_once(data, device, learned))


def test_between_epochs_no_checkpoint_comes_before_its_time(make_data, device, tmp_path, monkeypatch):
    data = make_data(checkpoint_minutes=60.0)
    begun, made, save = start(data, device), [], Checkpoints.save

    def note(checkpoints: Checkpoints, step: int, *content: object) -> None:
        save(checkpoints, step, *content)
        made.append(step)

    monkeypatch.setattr(Checkpoints, "save", note)
    continue_training(begun.state, begun.prior, data, device, make_checkpoints(tmp_path, data))
    assert made
    assert {8, 12}.issuperset(made)
