"""Trainings that are compiled: one graph, the numbers of those that are not, the same files."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from nfpi.flows import MatrixExponentialFlow
from nfpi.flows.series import SeriesBounds
from nfpi.priors import GaussianPrior
from nfpi.runtime import device as device_module
from nfpi.runtime.device import choose_compiler
from nfpi.training import flow_training, loop
from nfpi.training.batches import TrainingData
from nfpi.training.flow import continue_training, start_training
from nfpi.training.likelihood import NegativeLogLikelihood
from nfpi.training.state import TrainingState

from .conftest import (
    CPU,
    LEARNED,
    SEED,
    assert_equal_states,
    describe_flow,
    replace_config,
    train_in_one_go,
)


class Backend:
    """`aot_eager`, which traces forward and backward and generates no code, or none; it counts its graphs."""

    def __init__(self, traces_backward: bool = True) -> None:
        self.graphs = 0
        self._traces_backward = traces_backward

    def __call__(self, graph, inputs):
        from torch._dynamo.backends.debugging import aot_eager

        self.graphs += 1
        return aot_eager(graph, inputs) if self._traces_backward else graph.forward


@pytest.fixture
def backend(monkeypatch) -> Backend:
    torch.compiler.reset()
    found = Backend(traces_backward=False)
    monkeypatch.setattr(flow_training, "choose_compiler", lambda wanted, device: found)
    return found


def train_small(data: TrainingData, device, learned=None) -> TrainingState:
    """Train a flow that is traced in a second."""
    description = describe_flow(data, num_flows=[1], num_blocks=[0], hidden_channels=[4])
    begun = start_training(replace_config(data, fit_after_epochs=0), description, "data", SEED, device)
    return continue_training(begun.state, begun.prior, data, device, learned=learned)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_images_to_likelihood_is_one_graph_with_the_gradients_of_eager_mode(covariance):
    """Of a flow with a full matrix and one of low rank; `fullgraph` raises where a graph breaks."""
    torch.compiler.reset()
    torch.manual_seed(0)
    flow = MatrixExponentialFlow((7, 4, 4), num_flows=[1, 1], num_blocks=[1, 0], hidden_channels=[4, 4])
    x, labels = 2 * torch.rand(5, 7, 4, 4) - 1, torch.tensor([0, 1, 2, 1, 0])
    flow.initialize(x)
    for parameter in flow.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    if covariance == "diagonal":
        prior = GaussianPrior(torch.randn(3, 112), 0.5 + torch.rand(3, 112))
    else:
        factor = 0.05 * torch.randn(3, 112, 112)
        prior = GaussianPrior(torch.randn(3, 112), covariance=factor @ factor.mT + torch.eye(112))
    SeriesBounds(flow).choose()
    backend = Backend()

    def results(likelihood: NegativeLogLikelihood) -> tuple[torch.Tensor, list[torch.Tensor]]:
        flow.zero_grad()
        nll, loss = likelihood(prior, x, labels)
        loss.mean().backward()
        return nll.detach(), [parameter.grad.clone() for parameter in flow.parameters()]

    expected = results(NegativeLogLikelihood(flow))
    for _ in range(2):
        found = results(NegativeLogLikelihood(flow, backend, batch=5))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert backend.graphs == 1
    other = NegativeLogLikelihood(flow, backend, batch=4)  # a batch of another size is not compiled
    torch.testing.assert_close(results(other), expected, rtol=0, atol=0)
    assert backend.graphs == 1


@pytest.mark.parametrize("how", [None, "step"])
def test_a_compiled_training_is_that_of_eager_mode(make_data, device, backend, monkeypatch, how):
    data = make_data(learning_rate=1e-3)
    compiled = train_small(data, device, LEARNED.get(how))
    priors = 1 if how is None else 2  # those that have a gradient are another graph
    assert backend.graphs == priors
    monkeypatch.undo()
    eager = train_small(data, device, LEARNED.get(how))
    assert backend.graphs == priors
    for name in ("flow", "averaged_flow"):
        left, right = (getattr(state, name).state_dict() for state in (compiled, eager))
        assert left.keys() == right.keys()
        for key, value in left.items():
            torch.testing.assert_close(value, right[key], rtol=1e-3, atol=1e-4)
    for one, other in zip(compiled.log, eager.log, strict=True):
        assert one["train_bits_per_dim"] == pytest.approx(other["train_bits_per_dim"], rel=1e-5)
        assert 0 < other["series_terms"] <= one["series_terms"] <= one["series_terms_max"]
    (tensors, header), (eager_tensors, eager_header) = compiled.serialize(), eager.serialize()
    assert tensors.keys() == eager_tensors.keys() | {"series_largest"}
    assert len(header["series_bounds"]) == 1
    assert "series_bounds" not in eager_header


def test_another_bound_is_another_graph(make_data, device, backend, monkeypatch):
    """It is chosen at a check within an epoch, and the training continues."""
    monkeypatch.setattr(loop, "_STEPS_BETWEEN_CHECKS", 2)
    watch, steps = SeriesBounds.watch, iter(range(100))

    def grow_and_watch(bounds: SeriesBounds) -> None:
        if next(steps) == 5:
            for coupling in bounds._couplings:
                coupling.rescale.data *= 1.8
        watch(bounds)

    monkeypatch.setattr(SeriesBounds, "watch", grow_and_watch)
    state = train_small(make_data(learning_rate=1e-4), device)
    assert backend.graphs == 2
    assert state.log[0]["series_terms"] < state.log[1]["series_terms"] == state.log[2]["series_terms"]


@pytest.mark.parametrize("made", [6, 8])
def test_a_training_with_held_bounds_is_resumed(make_data, device, cut_and_resume, backend, monkeypatch, made):
    """Cut within an epoch or after one; bounds in the checkpoint are held again."""
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    data = make_data()
    state, whole = cut_and_resume(data, made), train_in_one_go(data, device)
    assert_equal_states(state, whole)
    assert state.series_bounds == whole.series_bounds
    for trained in (state.flow, state.averaged_flow):  # afterwards the couplings read their own bounds
        assert [module.held_bound for module in trained.modules() if hasattr(module, "held_bound")] == [None] * 3


# ---- whether a training is compiled ----------------------------------------------------------------------------------


@pytest.fixture
def on_gpu(monkeypatch) -> torch.device:
    monkeypatch.setattr(device_module, "find_spec", lambda name: SimpleNamespace())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    monkeypatch.setattr(device_module, "_find_compiler_fault", lambda device: None)
    return torch.device("cuda", 0)


def test_trainings_are_compiled_on_gpus_that_triton_supports(monkeypatch, on_gpu):
    assert choose_compiler("auto", CPU) is None
    assert choose_compiler("auto", on_gpu) == choose_compiler(True, on_gpu) == "inductor"
    assert choose_compiler(False, on_gpu) is None
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (7, 0))
    assert choose_compiler("auto", on_gpu) is None
    assert choose_compiler(True, on_gpu) == "inductor"
    monkeypatch.undo()
    monkeypatch.setattr(device_module, "find_spec", lambda name: None)
    assert choose_compiler("auto", on_gpu) is None


def test_a_compiler_that_does_not_work_is_an_error_where_it_is_asked_for(monkeypatch, caplog):
    def compile_nothing(function, **options):
        raise RuntimeError("\nNo working C++ compiler found\nmore")

    monkeypatch.setattr(torch, "compile", compile_nothing)
    with pytest.raises(ValueError, match=r"No working C\+\+ compiler found\)$"):
        choose_compiler(True, CPU)
    monkeypatch.setattr(device_module, "_has_triton", lambda device: True)
    assert choose_compiler("auto", CPU) is None
    assert "No working C++ compiler found" in caplog.text


def test_a_loss_with_the_posterior_is_not_compiled(make_data, device, backend):
    state = train_small(make_data(learning_rate=1e-3, posterior_weight=30.0), device)
    assert backend.graphs == 0
    assert all(math.isfinite(row["train_bits_per_dim"]) for row in state.log)
