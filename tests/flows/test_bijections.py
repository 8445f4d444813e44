"""The contract of a bijection, kept by every one in the table."""

import json
import re
import runpy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nfpi.config.flows import FLOWS
from nfpi.config.registry import registering_from
from nfpi.flows import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    LowRankMatrixExponentialCoupling,
    MatrixExponentialConv1x1,
    MatrixExponentialCoupling,
    MatrixExponentialFlow,
    build_flow,
    check_flow,
)
from nfpi.flows.coupling import make_coupling
from nfpi.flows.glow import GlowCoupling, LowerUpperConv1x1
from nfpi.flows.matrix_exponential import MatrixExponentialStep

NICE = Path(__file__).parents[2] / "examples" / "nice_flow.py"


@pytest.fixture(scope="module", autouse=True)
def example_is_registered():
    """In this module only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FLOWS, "_variants", dict(FLOWS._variants))
        FLOWS.forget(NICE)
        with registering_from(NICE):
            runpy.run_path(str(NICE))
        yield


def _flow(coupling, *shape):
    def build():
        linear = MatrixExponentialConv1x1(shape[0])
        return MatrixExponentialStep(ActNorm(shape), linear, make_coupling(coupling, shape[0], 8, 1))

    return shape, build


def _backbone(kind, *shape, **settings):
    return shape, lambda: build_flow({"kind": kind, "shape": shape, "settings": settings})


def _matrix_exponential(levels, coupling, *shape, flows=1):
    settings = {"num_flows": [flows] * levels, "num_blocks": [1] * levels, "hidden_channels": [8] * levels}
    return _backbone("matrix_exponential", *shape, **settings, coupling=coupling)


def _glow(levels, *shape, flows=1):
    return _backbone("glow", *shape, num_flows=[flows] * levels, hidden_channels=[8] * levels)


def _transformer(*shape, **settings):
    return _backbone("transformer", *shape, **{"num_flows": 6, "depth": 1, "width": 8, "num_heads": 2, **settings})


def _zuko(dimensions, **settings):
    return _backbone("zuko", dimensions, 1, 1, **{"num_flows": 2, "hidden_features": [8], **settings})


BACKBONES = {
    "matrix exponential, one level, grey": _matrix_exponential(1, "matrix_exponential", 1, 4, 6, flows=2),
    "matrix exponential, one level, low rank": _matrix_exponential(1, "matrix_exponential", 13, 2, 2),
    "matrix exponential, two levels, colour": _matrix_exponential(2, "matrix_exponential", 3, 4, 8),
    "matrix exponential, two levels, grey, affine": _matrix_exponential(2, "affine", 1, 8, 4, flows=2),
    "matrix exponential, three levels, grey": _matrix_exponential(3, "matrix_exponential", 1, 8, 16),
    "matrix exponential, three levels, colour, additive": _matrix_exponential(3, "additive", 3, 8, 8),
    "Glow, one level, grey": _glow(1, 1, 4, 6, flows=2),
    "Glow, two levels, colour": _glow(2, 3, 4, 8),
    "Glow, three levels, grey": _glow(3, 1, 8, 16),
    "transformer, grey": _transformer(1, 6, 8, patch_size=2),
    "transformer, colour, one pixel a patch": _transformer(3, 3, 4, patch_size=1),
    "transformer, odd numbers of patches and channels": _transformer(3, 9, 3, patch_size=3),
    "transformer, patches split only": _transformer(1, 2, 4, patch_size=1, channel_couplings=0),
    "transformer, channels split oftener": _transformer(1, 4, 8, patch_size=2, channel_couplings=4, depth=2),
    "zuko, splines": _zuko(6),
    "zuko, affine, autoregressive": _zuko(5, architecture="MAF", coupling=False),
    "zuko, couplings": _zuko(5, architecture="NICE"),
}

EXAMPLES = {
    "NICE, grey, odd": _backbone("nice", 1, 3, 5, couplings=4, hidden=8),
    "NICE, colour": _backbone("nice", 3, 2, 4, couplings=3, hidden=8),
}

BIJECTIONS = {
    "actnorm": ((3, 4, 5), lambda: ActNorm((3, 4, 5))),
    "actnorm, grey": ((1, 2, 3), lambda: ActNorm((1, 2, 3))),
    "convolution": ((5, 3, 2), lambda: MatrixExponentialConv1x1(5)),
    "convolution, one channel": ((1, 3, 2), lambda: MatrixExponentialConv1x1(1)),
    "dense coupling": ((6, 2, 3), lambda: MatrixExponentialCoupling(6, 8, 2)),
    "dense coupling, odd": ((5, 3, 2), lambda: MatrixExponentialCoupling(5, 8, 0)),
    "dense coupling, one channel mapped": ((2, 3, 2), lambda: MatrixExponentialCoupling(2, 8, 1)),
    "dense coupling, the largest": ((48, 1, 2), lambda: MatrixExponentialCoupling(48, 8, 1)),
    "low-rank coupling": ((50, 1, 2), lambda: LowRankMatrixExponentialCoupling(50, 8, 1)),
    "low-rank coupling, odd": ((53, 2, 1), lambda: LowRankMatrixExponentialCoupling(53, 8, 1)),
    "affine coupling": ((6, 3, 2), lambda: AffineCoupling(6, 8, 1)),
    "affine coupling, odd": ((3, 2, 3), lambda: AffineCoupling(3, 8, 1)),
    "additive coupling": ((6, 3, 2), lambda: AdditiveCoupling(6, 8, 1)),
    "additive coupling, odd": ((7, 2, 2), lambda: AdditiveCoupling(7, 8, 1)),
    "flow": _flow("matrix_exponential", 6, 2, 3),
    "flow, affine": _flow("affine", 4, 3, 2),
    "flow, additive": _flow("additive", 4, 3, 2),
    "flow, low rank": _flow("matrix_exponential", 52, 1, 2),
    "convolution in factors": ((5, 3, 2), lambda: LowerUpperConv1x1(5)),
    "actnorm of channels": ((3, 4, 5), lambda: ActNorm((3, 1, 1))),
    "Glow's coupling": ((6, 3, 2), lambda: GlowCoupling(6, 8)),
    "Glow's coupling, odd": ((3, 2, 3), lambda: GlowCoupling(3, 8)),
    **BACKBONES,
    **EXAMPLES,
}

every_bijection = pytest.mark.parametrize("name", BIJECTIONS)


def _build(name, randomize, seed=0):
    shape, constructor = BIJECTIONS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        bijection = constructor()
    return shape, randomize(bijection, seed)


def _images(shape, batch=2, seed=0):
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _jacobian(change, x):
    """∂y/∂x of every image of the batch, (B, D, D), a row a backward pass."""
    x = x.clone().requires_grad_()
    y = change(x)[0].flatten(1)
    rows = [torch.autograd.grad(column.sum(), x, retain_graph=True)[0].flatten(1) for column in y.unbind(1)]
    return torch.stack(rows, 1)


@every_bijection
def test_inverse_undoes_forward_and_forward_undoes_inverse(name, randomize):
    shape, bijection = _build(name, randomize)
    x = _images(shape, batch=3)
    y, there = bijection(x)
    back, home = bijection.inverse(y)
    assert y.shape == back.shape == x.shape
    assert (y - x).abs().amax() > 0.01, "a trivial map tests nothing"
    assert (back - x).abs().max() <= 1e-10
    torch.testing.assert_close(home, -there, rtol=1e-12, atol=1e-10)
    back, home = bijection.inverse(x)
    again, there = bijection(back)
    assert (again - x).abs().max() <= 1e-10
    torch.testing.assert_close(home, -there, rtol=1e-12, atol=1e-10)


@every_bijection
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_log_abs_det_is_that_of_the_jacobian(name, direction, randomize):
    shape, bijection = _build(name, randomize)
    x = _images(shape)
    change = getattr(bijection, direction)
    found = change(x)[1]
    assert found.shape in ((), (2,))
    sign, expected = torch.linalg.slogdet(_jacobian(change, x))
    assert (sign != 0).all()
    torch.testing.assert_close(found.expand(2), expected, rtol=1e-10, atol=1e-10)


@every_bijection
def test_images_of_a_batch_do_not_know_each_other(name, randomize):
    shape, bijection = _build(name, randomize)
    x = _images(shape, batch=3)
    for change in (bijection.forward, bijection.inverse):
        y, log_abs_det = change(x)
        alone = [change(image[None]) for image in x]
        torch.testing.assert_close(torch.cat([y for y, _ in alone]), y, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(torch.stack([det.view(()) for _, det in alone]), log_abs_det.expand(3))


@every_bijection
def test_gradients_reach_every_parameter(name, randomize):
    """Of the likelihood of a standard normal; all of them finite."""
    shape, bijection = _build(name, randomize)
    z, log_abs_det = bijection(_images(shape))
    (0.5 * z.square().sum() - log_abs_det.sum()).backward()
    for parameter_name, parameter in bijection.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert torch.isfinite(parameter.grad).all(), parameter_name
        assert parameter.grad.any(), parameter_name


@every_bijection
def test_initialisation_is_finite_and_what_it_returns_is_the_image_under_the_initialised_map(name, randomize):
    """With pixels that are constant, as large parts of grey images are."""
    shape, bijection = _build(name, randomize)
    x = _images(shape, batch=16)
    x[:, 0, 0, 0] = -0.75
    x[:, -1, -1, -1] = 0.0
    y = bijection.initialize(x)
    assert not y.requires_grad
    assert torch.isfinite(y).all()
    torch.testing.assert_close(bijection(x)[0], y)
    assert (bijection.inverse(y)[0] - x).abs().max() <= 1e-10


@every_bijection
def test_same_seed_same_map(name, randomize):
    shape, first = _build(name, randomize, seed=3)
    assert torch.equal(first(_images(shape))[0], _build(name, randomize, seed=3)[1](_images(shape))[0])


# ---- backbones: built from what describes them -----------------------------------------------------------------------

every_backbone = pytest.mark.parametrize("name", [*BACKBONES, *EXAMPLES])


def test_every_backbone_of_the_project_is_in_the_table():
    kinds = {constructor().kind for _, constructor in BACKBONES.values()}
    assert kinds == {kind for kind in FLOWS if FLOWS[kind].extension is None} - {
        "trained",
        "identity",
    }  # which is no flow


@every_backbone
def test_backbone_is_the_same_again_from_its_description_and_weights(name, randomize):
    shape, flow = _build(name, randomize)
    description = json.loads(json.dumps(flow.description))
    again = build_flow(description, flow.float().state_dict())
    flow = flow.double()
    assert type(again) is type(flow)
    assert again.settings == flow.settings
    assert again.description == flow.description == description
    assert again.shape == shape
    assert next(again.parameters()).dtype == torch.float32
    assert [*again.state_dict()] == [*flow.state_dict()]
    x = _images(shape)
    assert torch.equal(again.double()(x)[0], flow(x)[0])


@every_backbone
def test_loaded_weights_are_copies(name, randomize):
    _, flow = _build(name, randomize)
    flow.float()  # as in files
    again = build_flow(flow.description, flow.state_dict())
    for value, copy in zip(flow.state_dict().values(), again.state_dict().values(), strict=True):
        assert value.data_ptr() != copy.data_ptr()


@every_backbone
def test_backbone_takes_latents_as_vectors(name, randomize):
    shape, flow = _build(name, randomize)
    z = _images(shape, batch=3)
    for as_images, as_vectors in zip(flow.inverse(z), flow.inverse(z.flatten(1)), strict=True):
        assert torch.equal(as_images, as_vectors)


@every_backbone
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_backbone_passes_the_check_of_users_flows(name, dtype, randomize):
    shape, flow = _build(name, randomize)
    check_flow(flow.to(dtype), _images(shape, batch=4).to(dtype))


@every_backbone
def test_log_abs_det_of_a_backbone_is_one_number_an_image(name, randomize):
    shape, flow = _build(name, randomize)
    z, log_abs_det = flow(_images(shape, batch=3))
    assert log_abs_det.shape == flow.inverse(z)[1].shape == (3,)


@every_backbone
def test_backbone_refuses_images_and_latents_of_another_shape(name):
    (channels, height, width), constructor = BIJECTIONS[name]
    flow = constructor()
    for wrong in [(2, channels + 1, height, width), (2, channels, height, 2 * width), (channels, height, width)]:
        for change, what in ((flow, "images"), (flow.initialize, "images"), (flow.inverse, "latents")):
            with pytest.raises(ValueError, match=rf"{what}.*{re.escape(str(wrong))}"):
                change(torch.zeros(wrong))
    with pytest.raises(ValueError, match="latents"):
        flow.inverse(torch.zeros(2, channels * height * width + 1))


@pytest.mark.parametrize("name", [name for name in BACKBONES if "zuko" not in name])  # whose vectors are standardised
def test_first_latents_of_a_new_backbone_are_centred(name):
    """So that class Gaussians are fitted at one scale for all of them: about unit variance on average."""
    shape, constructor = BACKBONES[name]
    torch.manual_seed(0)
    z = constructor().double().initialize(0.3 + 2 * _images(shape, batch=256)).flatten(1)
    assert z.mean().abs() < 0.1
    assert 0.3 < z.var(0, correction=0).mean() < 3


@every_backbone
def test_backbone_in_mixed_precision_gives_float32(name, randomize):
    shape, flow = _build(name, randomize)
    flow, x = flow.float(), _images(shape).float()
    expected, expected_change = flow(x)
    with torch.autocast("cpu", torch.bfloat16):
        z, log_abs_det = flow(x)
        back, _ = flow.inverse(z)
    assert z.dtype == log_abs_det.dtype == back.dtype == torch.float32
    torch.testing.assert_close(z, expected, rtol=0.1, atol=0.2 * expected.std().item())
    torch.testing.assert_close(log_abs_det, expected_change, rtol=0.1, atol=0.02 * x[0].numel())


# ---- any shape -------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    levels=st.integers(1, 3),
    channels=st.integers(1, 3),
    height=st.integers(1, 2),
    width=st.integers(1, 2),
    flows=st.integers(0, 2),
    blocks=st.integers(0, 1),
    coupling=st.sampled_from(["matrix_exponential", "affine", "additive"]),
    seed=st.integers(0, 2**31),
)
def test_multiscale_flow_of_any_shape_is_a_bijection(
    randomize, levels, channels, height, width, flows, blocks, coupling, seed
):
    shape = (channels, height * 2**levels, width * 2**levels)
    torch.manual_seed(seed)
    flow = randomize(MatrixExponentialFlow(shape, [flows] * levels, [blocks] * levels, [4] * levels, coupling), seed)
    x = _images(shape, seed=seed)
    z, there = flow(x)
    back, home = flow.inverse(z.flatten(1))
    assert z.shape == x.shape
    assert there.shape == home.shape == (2,)
    assert (back - x).abs().max() <= 1e-9
    torch.testing.assert_close(home, -there, rtol=1e-10, atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(
    levels=st.integers(1, 2),
    channels=st.integers(1, 2),
    tall=st.booleans(),
    coupling=st.sampled_from(["matrix_exponential", "affine", "additive"]),
    seed=st.integers(0, 2**31),
)
def test_log_abs_det_of_a_multiscale_flow_of_any_shape(randomize, levels, channels, tall, coupling, seed):
    shape = (channels, 2**levels * (1 + tall), 2**levels)
    torch.manual_seed(seed)
    flow = randomize(MatrixExponentialFlow(shape, [1] * levels, [1] * levels, [4] * levels, coupling), seed)
    x = _images(shape, seed=seed)
    torch.testing.assert_close(flow(x)[1], torch.linalg.slogdet(_jacobian(flow, x)).logabsdet, rtol=1e-10, atol=1e-10)
