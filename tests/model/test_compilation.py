"""Models with compiled networks: the same results, one graph for all networks of a kind and all numbers of images."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch

from nfpi import ClassConditionalFlow
from nfpi.config.base import Settings
from nfpi.flows import ImageFlow, MatrixExponentialFlow
from nfpi.flows.registry import build_flow
from nfpi.model import inference
from nfpi.priors import GaussianPrior
from nfpi.runtime import compiler

CPU = torch.device("cpu")
FLOWS = {
    # settings, networks, kinds of networks
    "matrix_exponential": ({"num_flows": [2, 3], "num_blocks": [1, 0], "hidden_channels": [4, 4]}, 5, 2),
    "glow": ({"num_flows": [2, 1], "hidden_channels": [4, 4]}, 3, 2),
    "transformer": (
        {"num_flows": 4, "patch_size": 2, "width": 8, "num_heads": 2, "depth": 1, "channel_couplings": 1},
        4,
        2,
    ),
}


class Backend:
    """A backend that generates no code, and counts the graphs and how often they run."""

    def __init__(self) -> None:
        self.graphs = self.runs = 0

    def __call__(self, graph, inputs):
        self.graphs += 1

        def run(*arguments):
            self.runs += 1
            return graph.forward(*arguments)

        return run

    def runs_of(self, use: Callable[[], object]) -> int:
        """Count the runs of graphs in a call."""
        before = self.runs
        use()
        return self.runs - before


@pytest.fixture
def backend(monkeypatch) -> Backend:
    torch.compiler.reset()
    found = Backend()
    monkeypatch.setattr(inference, "BACKEND", found)
    monkeypatch.setattr(inference, "require_compiler", lambda purpose, device: None)
    return found


def make_model(flow: ImageFlow) -> ClassConditionalFlow:
    """A flow with random weights near those of its initialisation, and Gaussians of two classes."""
    torch.manual_seed(0)
    flow.initialize(2 * torch.rand(32, *flow.shape) - 1)
    for weight in flow.parameters():
        weight.data += 0.02 * torch.randn_like(weight)
    data = {"name": None, "classes": ["one", "other"], "dtype": "uint8", "extra": {}}
    config = {"data": data, "training": {"grey_noise": 0.0, "latent_noise": 0.0}, "seed": 0}
    dimensions = int(np.prod(flow.shape))
    return ClassConditionalFlow(flow, GaussianPrior(torch.randn(2, dimensions), torch.ones(2, dimensions)), config)


def model_of(kind: str, shape: tuple[int, int, int] = (3, 8, 8)) -> ClassConditionalFlow:
    return make_model(build_flow({"kind": kind, "shape": shape, "settings": FLOWS[kind][0]}))


def tiny_model() -> ClassConditionalFlow:
    return make_model(MatrixExponentialFlow((1, 4, 4), num_flows=[1], num_blocks=[0], hidden_channels=[4]))


def images_of(model: ClassConditionalFlow, number: int) -> np.ndarray:
    return np.random.default_rng(1).integers(256, size=(number, *model.shape), dtype=np.uint8)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize("kind", FLOWS)
def test_all_networks_run_compiled_and_those_of_a_kind_share_a_graph(backend, kind):
    _, networks, kinds = FLOWS[kind]
    eager = model_of(kind)
    model = copy.deepcopy(eager)
    model.compile()
    images, labels = images_of(model, 6), [0, 1] * 3
    latents = eager.encode(images)
    for number in (6, 2, 5):  # another number of images does not compile again
        assert backend.runs_of(lambda n=number: model.predict(images[:n])) == networks
        assert backend.runs_of(lambda n=number: model.decode(latents[:n])) == networks
        assert backend.graphs == kinds
    assert backend.runs_of(lambda: model.sample(labels)) == networks
    assert backend.runs_of(lambda: model.encode(images)) == networks
    assert backend.runs_of(lambda: model.augment(images, labels, variants=1)) >= 2 * networks
    assert backend.graphs == kinds
    assert backend.runs_of(lambda: model.predict(images[:1])) == 0  # a single image is not compiled
    assert backend.runs_of(lambda: eager.predict(images)) == 0
    np.testing.assert_allclose(model.log_prob(images), eager.log_prob(images), rtol=1e-6)
    assert (model.sample(labels, generator=seeded()) == eager.sample(labels, generator=seeded())).mean() > 0.99


def test_a_process_may_compile_more_models_than_torch_keeps_graphs_of_a_function(backend):
    for _ in range(torch._dynamo.config.cache_size_limit + 1):
        model = tiny_model()
        model.compile()
        assert backend.runs_of(lambda model=model: model.predict(images_of(model, 2))) == 1


def test_the_flow_and_copies_of_the_model_are_not_compiled(backend, tmp_path):
    eager = model_of("glow")
    model = copy.deepcopy(eager)
    model.compile()
    images = images_of(model, 4)
    model.save_pretrained(tmp_path)  # before and after use
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), ClassConditionalFlow.from_pretrained(tmp_path)]
    assert backend.runs_of(lambda: model.predict(images)) == 3
    copies += [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    for one in copies:
        assert backend.runs_of(lambda one=one: one.predict(images)) == 0
        assert (one.log_prob(images) == eager.log_prob(images)).all()
    assert model.flow.state_dict().keys() == eager.flow.state_dict().keys()
    x = torch.rand(4, 3, 8, 8)
    assert backend.runs_of(lambda: model.flow(x)[0].sum().backward()) == 0
    assert all(weight.grad is not None for weight in model.flow.parameters())
    assert backend.runs_of(lambda: model.to("cpu").predict(images)) == 3  # a moved model stays compiled


def test_the_generated_code_computes_what_the_flow_does():
    """With the compiler itself, where there is one."""
    try:
        compiler.require_compiler("compile", CPU)
    except ValueError as error:
        pytest.skip(str(error))
    eager = tiny_model()
    model = copy.deepcopy(eager)
    model.compile()
    for number in (30, 7):
        images, labels = images_of(model, number), np.arange(number) % 2
        np.testing.assert_allclose(model.log_prob(images), eager.log_prob(images), rtol=1e-5)
        drawn, expected = (one.sample(labels, generator=seeded()).astype(int) for one in (model, eager))
        assert abs(drawn - expected).max() <= 1
        assert (drawn == expected).mean() > 0.99
    assert "aten::elu_" in operations_of(lambda: eager.predict(images))
    assert "aten::elu_" not in operations_of(lambda: model.predict(images))  # it is fused


def operations_of(use: Callable[[], object]) -> set[str]:
    """Return the names of torch's operations in a call."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        use()
    return {event.key for event in profile.key_averages()}


def test_without_a_compiler_there_is_one_clear_line_and_the_model_remains(monkeypatch):
    def compile_nothing(function, **options):
        raise RuntimeError("\nNo compiler found\nmore")

    model = model_of("glow")
    expected = model.log_prob(images_of(model, 2))
    monkeypatch.setattr(torch, "compile", compile_nothing)
    line = r"^compile: expected a C\+\+ compiler \(g\+\+ or clang\+\+\), received an error \(No compiler found\)$"
    with pytest.raises(ValueError, match=line):
        model.compile()
    assert (model.log_prob(images_of(model, 2)) == expected).all()


def test_a_compiled_model_is_not_moved_to_a_device_without_a_compiler(backend, monkeypatch):
    model = model_of("glow")
    model.compile()

    def fail(purpose, device):
        raise ValueError(f"{purpose}: expected Triton and a C compiler on {device}")

    monkeypatch.setattr(inference, "require_compiler", fail)
    with pytest.raises(ValueError, match="compile"):
        model.to("meta")
    assert model.device == CPU


def test_a_flow_without_coupling_networks_is_refused():
    class Identity(ImageFlow):
        kind = "identity"

        def forward(self, x):
            return x, x.new_zeros(len(x))

        inverse = forward

    with pytest.raises(ValueError, match=r"compile.*'identity'"):
        inference.CompiledNets(Identity((1, 2, 2), Settings()), CPU)
