"""What each layer is, beyond being a bijection."""

import pytest
import torch
import torch.nn.functional as F

from nfpi.flows import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    LowRankMatrixExponentialCoupling,
    MatrixExponentialConv1x1,
    MatrixExponentialCoupling,
)
from nfpi.flows.actnorm import inverse_softplus
from nfpi.flows.coupling import LARGEST_DENSE, RANK, make_coupling
from nfpi.flows.matrix_exponential import draw_rotation_logarithm
from nfpi.flows.networks import NormalizedConv2d, ResidualBlock, ResidualNet


def _images(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# ---- actnorm ---------------------------------------------------------------------------------------------------------


def test_inverse_softplus_overflows_nowhere():
    y = torch.tensor([1e-30, 1e-12, 1e-3, 0.5, 1.0, 30.0, 1e3, 1e30], dtype=torch.float64)
    x = inverse_softplus(y)
    assert torch.isfinite(x).all()
    torch.testing.assert_close(F.softplus(x), y, rtol=1e-9, atol=0)
    assert torch.isfinite(inverse_softplus(y.float())).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1e-3, 0.9), (1e4, -3e4), (1e-6, 0.0)])
def test_actnorm_starts_with_zero_mean_and_unit_variance(scale, offset, dtype):
    layer = ActNorm((2, 3, 4)).to(dtype)
    x = scale * _images(64, 2, 3, 4, dtype=dtype) * torch.linspace(0.5, 2, 24, dtype=dtype).view(2, 3, 4) + offset
    y = layer.initialize(x)
    # the input is known to one rounding of its offset only
    precision = (1e-4 if dtype == torch.float32 else 1e-7) * (1 + abs(offset) / scale)
    assert y.mean(0).abs().max() < precision
    assert (y.var(0, correction=0) - 1).abs().max() < precision


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 0.1, -1.0, 1 / 3, 1e3])
def test_actnorm_centres_constant_pixels_and_keeps_their_scale(value, dtype):
    layer = ActNorm((1, 2, 2)).to(dtype)
    x = _images(1000, 1, 2, 2, dtype=dtype)
    x[:, 0, 0, 1] = value
    y, log_abs_det = layer.initialize(x), layer(x)[1]
    assert y[:, 0, 0, 1].abs().max() <= 1e-5 * (1 + abs(value))
    rest = y.flatten(1)[:, [0, 2, 3]]
    assert rest.mean(0).abs().max() < 1e-5
    assert (rest.var(0, correction=0) - 1).abs().max() < 1e-4
    expected = -x.flatten(1)[:, [0, 2, 3]].std(0, correction=0).log().sum()
    torch.testing.assert_close(log_abs_det, expected, rtol=1e-4, atol=1e-4)


def test_actnorm_of_one_image_is_centred():
    x = _images(1, 2, 2, 2)
    assert ActNorm((2, 2, 2)).double().initialize(x).abs().max() < 1e-6


def test_actnorm_is_invertible_where_softplus_underflows():
    layer = ActNorm((1, 1, 2)).double()
    layer.scale.data[:] = -2000
    x = _images(3, 1, 1, 2)
    y, log_abs_det = layer(x)
    assert torch.isfinite(log_abs_det)
    torch.testing.assert_close(layer.inverse(y)[0], x)


# ---- 1×1 convolution -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 3, 12, 48])
def test_convolution_starts_as_a_rotation(channels):
    logarithm = draw_rotation_logarithm(channels, torch.Generator().manual_seed(channels)).double()
    assert torch.equal(logarithm, -logarithm.T)
    rotation = torch.linalg.matrix_exp(logarithm)
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(channels).double(), rtol=1e-6, atol=1e-6)
    assert torch.linalg.det(rotation).item() == pytest.approx(1.0, abs=1e-5)


def test_rotations_prefer_no_direction():
    """Of a Haar rotation every entry has mean 0 and mean square 1/C."""
    generator = torch.Generator().manual_seed(0)
    rotations = torch.stack([torch.linalg.matrix_exp(draw_rotation_logarithm(3, generator)) for _ in range(400)])
    assert rotations.mean(0).abs().max() < 4 / (3 * 400) ** 0.5
    assert (rotations.square().mean(0) - 1 / 3).abs().max() < 0.08


def test_convolution_is_the_exponential_at_every_pixel():
    layer = MatrixExponentialConv1x1(4).double()
    layer.weight.data += 0.1 * _images(4, 4, seed=1)
    x = _images(2, 4, 3, 5)
    y, log_abs_det = layer(x)
    matrix = torch.linalg.matrix_exp(layer.weight)
    torch.testing.assert_close(y, F.conv2d(x, matrix[:, :, None, None]))
    torch.testing.assert_close(log_abs_det, 15 * torch.linalg.slogdet(matrix).logabsdet)


# ---- couplings -------------------------------------------------------------------------------------------------------

COUPLINGS = {
    "dense": (MatrixExponentialCoupling, 7),
    "low rank": (LowRankMatrixExponentialCoupling, 53),
    "affine": (AffineCoupling, 7),
    "additive": (AdditiveCoupling, 7),
}


def _coupling(name, randomize):
    kind, channels = COUPLINGS[name]
    torch.manual_seed(0)
    return randomize(kind(channels, 8, 1), 0), channels


def _exponent(layer, out):
    return layer.rescale * torch.tanh(layer.scale * out + layer.shift) + layer.reshift


@pytest.mark.parametrize("name", COUPLINGS)
def test_coupling_is_the_exponential_of_what_its_net_gives(name, randomize):
    """y₂ = e^{S(x₁)} x₂ + b(x₁) a pixel at a time; b first, then S column by column, or W₁'s rows and W₂'s columns."""
    layer, channels = _coupling(name, randomize)
    kept, mapped = (channels + 1) // 2, channels // 2
    x = _images(2, channels, 2, 3)
    y, log_abs_det = layer(x)
    assert torch.equal(y[:, :kept], x[:, :kept])
    parameters = layer.net(x[:, :kept])
    trace = torch.zeros(2, dtype=torch.float64)
    for image in range(2):
        for row in range(2):
            for column in range(3):
                bias, out = parameters[image, :, row, column].split([mapped, parameters.shape[1] - mapped])
                if name == "additive":
                    matrix = torch.zeros(mapped, mapped, dtype=torch.float64)
                elif name == "affine":
                    matrix = torch.diag(_exponent(layer, out))
                elif name == "dense":
                    matrix = _exponent(layer, out).view(mapped, mapped).T
                else:
                    w1, w2 = (_exponent(layer, out) + 1e-8).view(2, RANK, mapped)
                    matrix = w2.T @ w1
                expected = torch.linalg.matrix_exp(matrix.contiguous()) @ x[image, kept:, row, column] + bias
                torch.testing.assert_close(y[image, kept:, row, column], expected, rtol=1e-11, atol=1e-11)
                trace[image] += matrix.trace()
    torch.testing.assert_close(log_abs_det, trace)


@pytest.mark.parametrize("name", COUPLINGS)
def test_coupling_starts_as_the_identity(name):
    kind, channels = COUPLINGS[name]
    layer = kind(channels, 8, 1).double()
    x = _images(4, channels, 2, 3)
    torch.testing.assert_close(layer(x)[0], x, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(layer.initialize(x), x, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(layer(x)[1], torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["dense", "low rank", "affine"])
def test_exponents_are_bounded_however_large_the_nets_output_is(name, randomize):
    layer, channels = _coupling(name, randomize)
    bound = (layer.rescale.abs() + layer.reshift.abs()).item()
    out = 1e6 * _images(2, 5, 3)
    assert layer.exponent(out).abs().max() <= bound * (1 + 1e-12)
    layer.net.out.weight.data *= 1e4
    x = _images(2, channels, 2, 3)
    assert (layer.inverse(layer(x)[0])[0] - x).abs().max() <= 1e-10 * layer(x)[0].abs().max()


@pytest.mark.parametrize(
    ("kind", "channels", "expected"),
    [
        ("matrix_exponential", 2 * LARGEST_DENSE + 1, MatrixExponentialCoupling),
        ("matrix_exponential", 2 * LARGEST_DENSE + 2, LowRankMatrixExponentialCoupling),
        ("affine", 100, AffineCoupling),
        ("additive", 100, AdditiveCoupling),
    ],
)
def test_coupling_by_kind_and_size(kind, channels, expected):
    assert type(make_coupling(kind, channels, 4, 1)) is expected


def test_coupling_of_one_channel_is_refused():
    with pytest.raises(ValueError, match=r"2 channels.*1"):
        AffineCoupling(1, 4, 1)


# ---- the net ---------------------------------------------------------------------------------------------------------


def test_normalisation_folded_into_the_convolution_is_the_normalisation_after_it():
    layer = NormalizedConv2d(3, 5, 3).double()
    layer.scale.data, layer.shift.data = _images(5, seed=1), _images(5, seed=2)
    x = _images(2, 3, 4, 6)
    unfolded = layer.scale.view(5, 1, 1) * F.conv2d(x, layer.weight, padding=1) + layer.shift.view(5, 1, 1)
    torch.testing.assert_close(layer(x), unfolded)


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_normalisation_starts_with_zero_mean_and_unit_variance(kernel_size):
    layer = NormalizedConv2d(3, 5, kernel_size).double()
    layer.weight.data[4] = 0  # a channel that is constant
    y = layer.initialize(7 + 3 * _images(8, 3, 6, 4))
    assert y.mean((0, 2, 3)).abs().max() < 1e-10
    variance = y.var((0, 2, 3), correction=0)
    torch.testing.assert_close(variance[:4], torch.ones(4, dtype=torch.float64))
    assert torch.isfinite(y).all()
    assert variance[4] == 0


def test_residual_block_starts_as_an_elu():
    block = ResidualBlock(4).double()
    x = _images(8, 4, 3, 5)
    torch.testing.assert_close(block.initialize(x), F.elu(x))


def test_residual_block_changes_neither_its_input_nor_its_gradient(randomize):
    """Its activations work in place."""
    block = randomize(ResidualBlock(3))
    x = _images(2, 3, 3, 2)
    before = x.clone()

    def plain(x):
        hidden = F.elu(block.conv2(F.elu(block.conv1(x))))
        return F.elu(x + block.conv3(hidden))

    torch.testing.assert_close(block(x), plain(x))
    assert torch.equal(x, before)
    assert torch.autograd.gradcheck(block, x.requires_grad_())


@pytest.mark.parametrize("initialization", ["normal", "uniform"])
def test_either_initialisation_normalises_all_but_the_last_layer(initialization):
    torch.manual_seed(0)
    net = ResidualNet(3, 8, 5, 2, initialization).double()
    x = 5 + 3 * _images(16, 3, 4, 4)
    assert not net.initialize(x).any()
    hidden = net.head(x)
    torch.testing.assert_close(hidden.var((0, 2, 3), correction=0), torch.ones(8, dtype=torch.float64))
    assert hidden.mean((0, 2, 3)).abs().max() < 1e-10
    for block in net.blocks:
        hidden = F.elu(hidden)
        inner = block.conv1(hidden)
        torch.testing.assert_close(inner.var((0, 2, 3), correction=0), torch.ones(8, dtype=torch.float64))
        assert not block.conv3(F.elu(block.conv2(F.elu(inner)))).any()


def test_uniform_kernels_carry_the_scale_of_the_data_and_normal_ones_do_not():
    """Released kernels have rms · √fan_in of 1.3 to 1.7 and norms of scale 1, 0.77 after the first convolution."""
    x = _images(64, 12, 8, 8)
    nets = {}
    for name in ("normal", "uniform"):
        torch.manual_seed(0)
        nets[name] = ResidualNet(12, 32, 5, 2, name).double()
        nets[name].initialize(x)
    layers = [layer for layer in nets["uniform"].modules() if isinstance(layer, NormalizedConv2d)]
    for layer in layers:
        fan_in = layer.weight[0].numel()
        assert 1.2 < layer.weight.square().mean().mul(fan_in).sqrt() < 1.8
        rows = layer.weight.flatten(1)  # a uniform distribution ends at √3 times its standard deviation
        assert (rows.abs().amax(1) / rows.square().mean(1).sqrt()).max() < 2.2
        scale = 0.0 if layer.starts_at_zero else 0.77 if layer is nets["uniform"].head else 1.0
        torch.testing.assert_close(layer.scale.detach(), torch.full_like(layer.scale, scale))
    for layer in (part for part in nets["normal"].modules() if isinstance(part, NormalizedConv2d)):
        assert layer.weight.square().mean().mul(layer.weight[0].numel()).sqrt().item() == pytest.approx(1, rel=0.1)


def test_a_constant_channel_of_a_uniform_kernel_stays_finite():
    layer = NormalizedConv2d(3, 5, 1, initial_scale=0.77).double()
    layer.weight.data[4] = 0
    y = layer.initialize(_images(8, 3, 6, 4))
    assert torch.isfinite(y).all()
    assert not y[:, 4].any()
