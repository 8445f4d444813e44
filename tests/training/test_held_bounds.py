"""Bounds of the series that a step exceeded are not forgotten by a training that is resumed."""

from __future__ import annotations

import pytest
import torch

from nfpi.flows.series import SeriesBounds
from nfpi.runtime.formats import FormatError
from nfpi.runtime.tensors import load_tensors, save_tensors
from nfpi.training import flow_training
from nfpi.training.flow import continue_training
from nfpi.training.state import TrainingState

from .conftest import CPU, make_checkpoints, start


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds are held, as on GPUs, and checked at the end of an epoch of four steps."""
    monkeypatch.setattr(flow_training, "choose_compiler", lambda wanted, device: "eager")
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)


@pytest.fixture
def swollen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Step 5 exceeds a bound, and the weights shrink again before step 6."""
    watch = SeriesBounds.watch

    def swell_and_watch(bounds: SeriesBounds) -> None:
        watch(bounds)
        swell_and_watch.steps += 1
        if swell_and_watch.steps == 5 and bounds.largest is not None:
            bounds.largest[0] *= 3

    swell_and_watch.steps = 0
    monkeypatch.setattr(SeriesBounds, "watch", swell_and_watch)


@pytest.mark.usefixtures("held", "swollen")
def test_a_step_that_exceeded_a_bound_is_answered_after_a_resume(make_data, device, tmp_path, cut, caplog):
    data = make_data(learning_rate=1e-4)
    begun, again = start(data, device), start(data, device)
    SeriesBounds.watch.steps = 4
    cut(6, continue_training, begun.state, begun.prior, data, device, make_checkpoints(tmp_path, data))
    assert "exceeded bounds" not in caplog.text
    with caplog.at_level("INFO"):
        continue_training(again.state, again.prior, data, device, make_checkpoints(tmp_path, data))
    assert "step 8: weights exceeded bounds" in caplog.text


@pytest.mark.usefixtures("held")
def test_the_record_of_the_steps_is_in_the_file(make_data, device, tmp_path):
    data = make_data()
    begun, file = start(data, device), tmp_path / "state"
    largest = begun.state.series_largest
    assert largest.shape == (3,)
    assert (largest > 0).all()
    begun.state.save(file, {})
    state, _ = TrainingState.load(file, data.config, data.steps_per_epoch, CPU)
    assert torch.equal(state.series_largest, largest)
    tensors, header = load_tensors(file)
    save_tensors(file, tensors | {"series_largest": torch.zeros(2)}, header)
    with pytest.raises(FormatError, match="series_largest"):
        TrainingState.load(file, data.config, data.steps_per_epoch, CPU)
