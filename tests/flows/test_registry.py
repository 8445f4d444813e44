import pytest
import torch
from torch import nn

from nfpi.config.base import ConfigError, Settings
from nfpi.config.flows import FLOWS
from nfpi.flows import FlowError, ImageFlow, MatrixExponentialFlow, build_flow, register_flow
from nfpi.flows.bijection import is_initialization_skipped
from nfpi.flows.matrix_exponential import MatrixExponentialConv1x1
from nfpi.runtime.formats import FormatError


class _ShiftSettings(Settings):
    amount: float = 1.0


class _Shift(ImageFlow):
    """x + amount + shift, with a plain tensor and a random parameter."""

    def __init__(self, shape, settings):
        super().__init__(shape, settings)
        self.amount = torch.full(shape, settings.amount)
        self.shift = nn.Parameter(torch.randn(shape))

    def forward(self, x):
        return x + self.amount + self.shift, x.new_zeros(len(x))

    def inverse(self, z):
        return self.as_images(z) - self.amount - self.shift, z.new_zeros(len(z))


@pytest.fixture
def registered():
    before = dict(FLOWS._variants)
    yield register_flow
    FLOWS._variants = before


def _small(**change):
    settings = {"num_flows": [1], "num_blocks": [0], "hidden_channels": [4]}
    return {"kind": "matrix_exponential", "shape": [1, 4, 4], "settings": settings, **change}


def test_blocks_of_a_level_without_flow_steps_are_not_counted():
    settings = {"num_flows": [0, 1], "num_blocks": [50, 0], "hidden_channels": [4, 4]}
    flow = build_flow(_small(settings=settings))
    again = build_flow(flow.description, flow.state_dict())
    assert flow.state_dict().keys() == again.state_dict().keys()


def test_users_class_is_built_by_its_kind(registered):
    assert registered("shift", _ShiftSettings)(_Shift) is _Shift
    flow = build_flow({"kind": "shift", "shape": [1, 2, 2], "settings": {"amount": 2.0}})
    assert flow.kind == "shift"
    assert flow.description == {"kind": "shift", "shape": [1, 2, 2], "settings": {"amount": 2.0}}
    again = build_flow(flow.description, flow.state_dict())
    x = torch.rand(3, 1, 2, 2)
    assert torch.equal(again(x)[0], flow(x)[0])
    assert torch.equal(flow.initialize(x), flow(x)[0])


def test_users_function_may_build_a_flow_of_the_project(registered):
    """Whose description is then that of the user's kind."""

    @registered("small", _ShiftSettings)
    def build(shape, settings):
        return MatrixExponentialFlow(shape, [1], [0], [4])

    flow = build_flow({"kind": "small", "shape": [1, 4, 4], "settings": {}})
    assert flow.description == {"kind": "small", "shape": [1, 4, 4], "settings": {"amount": 1.0}}
    again = build_flow(flow.description, flow.state_dict())
    assert torch.equal(again(torch.ones(1, 1, 4, 4))[0], flow(torch.ones(1, 1, 4, 4))[0])


def test_class_without_an_inverse_is_refused_when_it_is_registered(registered):
    class NoInverse(ImageFlow):
        def forward(self, x):
            return x, x.new_zeros(len(x))

    class NoForward(ImageFlow):
        inverse = _Shift.inverse

    for kind, missing in ((NoInverse, "inverse"), (NoForward, "forward")):
        with pytest.raises(FlowError, match=f"flow 'mine':.*{missing}.*{kind.__name__}"):
            registered("mine", _ShiftSettings)(kind)
        assert "mine" not in FLOWS


def test_constructor_and_description_give_the_same_weights():
    torch.manual_seed(0)
    by_hand = MatrixExponentialFlow((1, 4, 4), num_flows=[1], num_blocks=[0], hidden_channels=[4])
    torch.manual_seed(0)
    built = build_flow(_small())
    assert by_hand.description == built.description
    for value, other in zip(by_hand.state_dict().values(), built.state_dict().values(), strict=True):
        assert torch.equal(value, other)


def test_loading_draws_no_random_rotation(monkeypatch):
    weights = build_flow(_small()).state_dict()
    monkeypatch.setattr("nfpi.flows.matrix_exponential.draw_rotation_logarithm", None)
    loaded = build_flow(_small(), weights)
    assert all(torch.equal(value, weights[name]) for name, value in loaded.state_dict().items())
    assert not is_initialization_skipped()
    with pytest.raises(TypeError):
        MatrixExponentialConv1x1(4)


def test_initialisation_is_not_skipped_after_a_failure():
    with pytest.raises(FormatError):
        build_flow(_small(), {})
    assert not is_initialization_skipped()


def _assert_refused(path, description, weights):
    """In one line that names the file."""
    with pytest.raises(FormatError) as caught:
        build_flow(description, weights, path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"settings": {"num_flows": [10**6], "num_blocks": [0], "hidden_channels": [4]}},
        {"settings": {"num_flows": [1], "depth": 3}},
        {"settings": None},
        {"shape": [1, 8, 7]},
        {"shape": [3, 4, 4]},
        {"shape": None},
        {"shape": [1, 8]},
        {"shape": [1, 4, 4.0]},
        {"kind": [1]},
    ],
)
def test_a_damaged_description_or_one_of_other_weights_is_named_with_its_file(tmp_path, change):
    _assert_refused(tmp_path / "model.safetensors", _small(**change), build_flow(_small()).state_dict())


@pytest.mark.parametrize(
    "change",
    [
        lambda weights: {name: value.to(torch.int32) for name, value in weights.items()},
        lambda weights: {**weights, "more": torch.zeros(1)},
        lambda weights: dict(list(weights.items())[1:]),
    ],
)
def test_damaged_weights_are_refused(tmp_path, change):
    _assert_refused(tmp_path / "model.safetensors", _small(), change(build_flow(_small()).state_dict()))


def test_flow_of_a_file_that_is_not_loaded_says_how_to_load_it(tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(ConfigError) as caught:
        build_flow(_small(kind="unheard"), build_flow(_small()).state_dict(), path)
    assert str(caught.value).startswith(f"{path}: unknown kind of flow 'unheard'")
    assert "load_extensions" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("with_weights", [False, True])
def test_builder_that_gives_no_flow_of_the_shape_is_refused(registered, with_weights):
    registered("module", _ShiftSettings)(lambda shape, settings: nn.Identity())
    registered("other", _ShiftSettings)(lambda shape, settings: _Shift((1, 2, 3), settings))
    weights = {} if with_weights else None
    with pytest.raises(FlowError, match=r"flow 'module':.*Identity"):
        build_flow({"kind": "module", "shape": [1, 2, 2], "settings": {}}, weights)
    with pytest.raises(FlowError, match=r"flow 'other'.*\(1, 2, 3\)"):
        build_flow({"kind": "other", "shape": [1, 2, 2], "settings": {}}, weights)
