"""What Glow's parts are, beyond being bijections."""

import pytest
import torch
import torch.nn.functional as F

from nfpi.config.flows import GlowSettings
from nfpi.flows import ActNorm, GlowFlow
from nfpi.flows.glow import GlowCoupling, GlowNet, LowerUpperConv1x1


def _images(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_actnorm_of_channels_starts_with_zero_mean_and_unit_variance_of_each(dtype):
    layer = ActNorm((3, 1, 1)).to(dtype)
    x = torch.tensor([1.0, 5.0, 0.01]).view(3, 1, 1) * _images(16, 3, 4, 2, dtype=dtype) + 0.7
    y = layer.initialize(x)
    assert layer.scale.shape == layer.shift.shape == (3, 1, 1)
    assert y.mean((0, 2, 3)).abs().max() < 1e-3
    torch.testing.assert_close(y.var((0, 2, 3), correction=0), torch.ones(3, dtype=dtype), rtol=1e-3, atol=0)
    expected = -4 * 2 * x.std((0, 2, 3), correction=0).log().sum()
    torch.testing.assert_close(layer(x)[1], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("channels", [1, 2, 4, 12, 48])
def test_convolution_starts_orthogonal(channels):
    torch.manual_seed(channels)
    layer = LowerUpperConv1x1(channels).double()
    weight = layer(torch.eye(channels, dtype=torch.float64).view(channels, channels, 1, 1))[0].flatten(1).T
    torch.testing.assert_close(weight @ weight.T, torch.eye(channels).double(), rtol=1e-5, atol=1e-5)
    assert layer(_images(2, channels, 3, 5))[1].abs() < 1e-4


def test_new_convolutions_prefer_no_direction():
    """Of a random orthogonal matrix every entry has mean 0 and mean square 1/C."""
    torch.manual_seed(0)
    rows = torch.eye(3, dtype=torch.float64).view(3, 3, 1, 1)
    weights = torch.stack([LowerUpperConv1x1(3).double()(rows)[0].detach().flatten(1) for _ in range(400)])
    assert weights.mean(0).abs().max() < 4 / (3 * 400) ** 0.5
    assert (weights.square().mean(0) - 1 / 3).abs().max() < 0.08


def test_convolution_is_the_product_of_its_factors_at_every_pixel(randomize):
    layer = randomize(LowerUpperConv1x1(4))
    x = _images(2, 4, 3, 5)
    lower = layer.lower.tril(-1) + torch.eye(4)
    upper = layer.upper.triu(1) + torch.diag(layer.log_diagonal.exp())
    weight = layer.permutation.double() @ lower @ upper
    assert layer.permutation.abs().sum(0).tolist() == layer.permutation.abs().sum(1).tolist() == [1] * 4
    y, log_abs_det = layer(x)
    torch.testing.assert_close(y, F.conv2d(x, weight[:, :, None, None]))
    torch.testing.assert_close(log_abs_det, 15 * torch.linalg.slogdet(weight).logabsdet)


def test_coupling_is_affine_in_what_its_net_gives(randomize):
    torch.manual_seed(0)
    layer = randomize(GlowCoupling(5, 8))
    x = _images(2, 5, 2, 3)
    y, log_abs_det = layer(x)
    shift, logit = layer.net(x[:, :3]).chunk(2, 1)
    scale = torch.sigmoid(logit + 2)
    assert torch.equal(y[:, :3], x[:, :3])
    torch.testing.assert_close(y[:, 3:], scale * x[:, 3:] + shift)
    torch.testing.assert_close(log_abs_det, scale.log().flatten(1).sum(1))


def test_nets_last_layer_starts_at_zero_and_the_others_normalised():
    net = GlowNet(3, 8, 4).double()
    x = _images(16, 3, 4, 4)
    assert not net.initialize(x).any()
    first = net.conv1(x)
    for output in (first, net.conv2(F.relu(first))):
        assert output.mean((0, 2, 3)).abs().max() < 1e-10
        torch.testing.assert_close(output.var((0, 2, 3), correction=0), torch.ones(8, dtype=torch.float64))


def test_nets_output_grows_exponentially_with_its_log_scale(randomize):
    torch.manual_seed(0)
    net = randomize(GlowCoupling(4, 8)).net
    x = _images(2, 2, 3, 3)
    before = net(x)
    net.out.log_scale.data += 0.1
    torch.testing.assert_close(net(x), before * torch.exp(torch.tensor(0.3)))


def test_new_flow_is_inverted_in_float32():
    torch.manual_seed(0)
    flow = GlowFlow((3, 16, 16), GlowSettings(num_flows=[8, 8, 8], hidden_channels=[32, 32, 32]))
    x = 2 * torch.rand(16, 3, 16, 16) - 1
    z = flow.initialize(x)
    assert torch.isfinite(z).all()
    assert (flow.inverse(z)[0] - x).abs().max() <= 1e-4


@pytest.mark.parametrize("shape", [(3, 12, 16), (3, 16, 12), (1, 7, 7)])
def test_size_that_does_not_divide_is_refused(shape):
    with pytest.raises(ValueError, match=rf"{shape[1]}×{shape[2]}"):
        GlowFlow(shape, GlowSettings(num_flows=[1] * 3, hidden_channels=[4] * 3))
