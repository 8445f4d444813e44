"""The file of a training state."""

from __future__ import annotations

import pytest
import torch

from nfpi.config.base import ConfigError, Settings
from nfpi.config.flows import TrainingConfig
from nfpi.flows import ImageFlow
from nfpi.runtime.files import file_digest
from nfpi.runtime.formats import FormatError
from nfpi.runtime.tensors import load_tensors, save_tensors
from nfpi.training.flow import continue_training, start_training
from nfpi.training.state import TrainingState

from .conftest import CPU, LEARNED, SEED, assert_equal_states, replace_config, start, train_in_one_go


def test_the_state_file_between_the_parts_changes_nothing(make_data, device, tmp_path):
    data = make_data()
    begun = start(data, device)
    begun.state.save(tmp_path / "state.safetensors", {"start": "data"})
    torch.manual_seed(123)  # what another process would find
    state, header = TrainingState.load(tmp_path / "state.safetensors", data.config, data.steps_per_epoch, CPU)
    assert header["start"] == "data"
    assert_equal_states(state, begun.state)
    state = continue_training(state, begun.prior, data, device)
    assert_equal_states(state, train_in_one_go(data, device))


def test_what_is_no_training_state_is_refused_in_one_line(make_data, device, tmp_path):
    data = make_data()
    state = start(data, device).state
    file = tmp_path / "state.safetensors"
    save_tensors(file, {"mean": torch.zeros(2, 2)}, {"seed": 0})
    without_moments = {f"flow.{key}": value for key, value in state.flow.state_dict().items()}
    for tensors in ({"mean": torch.zeros(2, 2)}, without_moments):
        save_tensors(file, tensors, {"seed": 0, "step": 1, "log": [], "flow": state.flow.description})
        with pytest.raises(FormatError, match=r"state\.safetensors") as error:
            TrainingState.load(file, data.config, data.steps_per_epoch, CPU)
        assert "\n" not in str(error.value)


def test_a_state_of_a_flow_that_is_not_loaded_says_how_to_load_it(make_data, device, tmp_path):
    data, file = make_data(), tmp_path / "state.safetensors"
    start(data, device).state.save(file, {})
    tensors, header = load_tensors(file)
    header["flow"]["kind"] = "unheard"
    save_tensors(file, tensors, header)
    with pytest.raises(ConfigError, match=r"state\.safetensors: unknown kind of flow 'unheard'.*load_extensions"):
        TrainingState.load(file, data.config, data.steps_per_epoch, CPU)


def test_a_learner_of_another_program_is_refused_in_one_line(make_data, device, tmp_path):
    data, file = make_data(), tmp_path / "state.safetensors"
    state = train_in_one_go(replace_config(data, epochs=2), device, LEARNED["epoch"])
    state.save(file, {})
    tensors, header = load_tensors(file)
    header["learner"]["config"]["momentum"] = 0.9
    save_tensors(file, tensors, header)
    with pytest.raises(FormatError, match=r"state\.safetensors") as error:
        TrainingState.load(file, data.config, data.steps_per_epoch, CPU)
    assert "\n" not in str(error.value)


def test_equal_states_are_equal_files(make_data, device, tmp_path):
    """The time that the epochs took is not in the file."""
    data = make_data()
    digests = set()
    for run in ("one", "other"):
        state = start(data, device).state
        assert state.log[0]["seconds"] > 0
        state.log[0]["seconds"] += len(digests)
        state.save(tmp_path / run, {"start": "data"})
        digests.add(file_digest(tmp_path / run))
    assert len(digests) == 1
    state, _ = TrainingState.load(tmp_path / "one", data.config, data.steps_per_epoch, CPU)
    assert state.log[0]["seconds"] is None


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_moments_of_other_optimizers_are_saved(make_data, device, tmp_path, optimizer):
    data = make_data(optimizer=optimizer, weight_decay=0.1, learning_rate=1e-3, schedule="cosine")
    begun = start(data, device)
    begun.state.save(tmp_path / "state.safetensors", {})
    state, _ = TrainingState.load(tmp_path / "state.safetensors", data.config, data.steps_per_epoch, CPU)
    assert_equal_states(state, begun.state)
    state = continue_training(state, begun.prior, data, device)
    assert_equal_states(state, train_in_one_go(data, device))


def test_moments_of_another_optimizer_are_refused_in_one_line(make_data, device, tmp_path):
    data, file = make_data(), tmp_path / "state.safetensors"
    start(data, device).state.save(file, {})
    other = make_data(optimizer="adam").config
    with pytest.raises(FormatError, match=r"state\.safetensors: .*trained by Adamax, not by Adam") as error:
        TrainingState.load(file, other, data.steps_per_epoch, CPU)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("glow", {"num_flows": [2, 1], "hidden_channels": [8, 8]})],
)
def test_other_backbones_are_trained_and_saved(make_data, device, tmp_path, kind, settings):
    data = make_data((3, 8, 8), learning_rate=1e-3)
    flow = {"kind": kind, "shape": [3, 8, 8], "settings": settings}
    begun = start_training(data, flow, "data", SEED, device)
    begun.state.save(tmp_path / "state.safetensors", {})
    state, header = TrainingState.load(tmp_path / "state.safetensors", data.config, data.steps_per_epoch, CPU)
    assert header["flow"]["kind"] == kind
    assert_equal_states(continue_training(state, begun.prior, data, device), unsplit_flow(data, device, flow))


def unsplit_flow(data, device, flow):
    begun = start_training(replace_config(data, fit_after_epochs=0), flow, "data", SEED, device)
    return continue_training(begun.state, begun.prior, data, device)


def test_a_flow_without_parameters_is_refused_in_one_line():
    class Flip(ImageFlow):
        def forward(self, x):
            return x.flip(3), x.new_zeros(len(x))

        inverse = forward

    with pytest.raises(ValueError, match="empty parameter list"):
        TrainingState.new(Flip((1, 2, 2), Settings()), TrainingConfig(), 0, 1)
