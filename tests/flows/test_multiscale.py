import pytest
import torch

from nfpi.config.flows import LevelSettings
from nfpi.flows import Coupling, MatrixExponentialFlow, build_flow
from nfpi.flows.multiscale import squeeze, unsqueeze


def _images(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def _flow(shape=(1, 4, 4), levels=2, flows=1, **options):
    torch.manual_seed(0)
    return MatrixExponentialFlow(shape, [flows] * levels, [1] * levels, [4] * levels, **options).double()


def test_squeeze_orders_channels_by_row_column_channel():
    x = _images(2, 3, 4, 6)
    y = squeeze(x)
    assert y.shape == (2, 12, 2, 3)
    for row in range(2):
        for column in range(2):
            for channel in range(3):
                expected = x[:, channel, row::2, column::2]
                assert torch.equal(y[:, (2 * row + column) * 3 + channel], expected)


@pytest.mark.parametrize("shape", [(2, 1, 2, 2), (1, 3, 4, 6), (3, 2, 8, 2)])
def test_unsqueeze_undoes_squeeze(shape):
    x = _images(*shape)
    assert torch.equal(unsqueeze(squeeze(x)), x)
    y = _images(shape[0], 4 * shape[1], *shape[2:])
    assert torch.equal(squeeze(unsqueeze(y)), y)


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_without_flows_every_latent_lies_where_its_pixel_was(levels):
    flow = _flow((3, 8, 16), levels, flows=0)
    x = _images(2, 3, 8, 16)
    z, log_abs_det = flow(x)
    assert torch.equal(z, x)
    assert not log_abs_det.any()
    assert torch.equal(flow.inverse(x)[0], x)


def test_first_half_of_the_channels_goes_on(randomize):
    """Those are the even rows: the flows of the second level leave the odd ones alone."""
    flow = randomize(MatrixExponentialFlow((2, 8, 8), [0, 1], [1, 1], [4, 4]))
    x = _images(2, 2, 8, 8)
    z, _ = flow(x)
    assert torch.equal(z[:, :, 1::2], x[:, :, 1::2])
    assert (z[:, :, ::2] != x[:, :, ::2]).all()


def test_pixels_are_mixed_within_the_squares_of_a_level_only():
    """1×1 convolutions know no neighbour; the new coupling is the identity, and looks at no other pixel."""
    flow = _flow((1, 8, 8), levels=1, flows=2)
    x = _images(1, 1, 8, 8)
    changed = x.clone()
    changed[0, 0, 2, 5] += 1
    different = (flow(changed)[0] != flow(x)[0])[0, 0]
    assert different[2:4, 4:6].all()
    assert different.sum() == 4


@pytest.mark.parametrize("levels", [1, 3])
def test_new_flow_centres_the_images_it_is_initialised_on(levels):
    flow = _flow((3, 8, 8), levels, flows=2)
    z = flow.initialize(0.3 + 2 * _images(64, 3, 8, 8))
    assert z.mean(0).abs().max() < 1e-10


def test_new_level_mixes_unit_variances_by_a_rotation():
    """Which keeps their sum over the channels of a pixel."""
    z = _flow((3, 4, 4), levels=1, flows=2).initialize(0.3 + 2 * _images(64, 3, 4, 4))
    sums = squeeze(z).var(0, correction=0).sum(0)
    torch.testing.assert_close(sums, torch.full((2, 2), 12.0, dtype=torch.float64))


def test_new_flow_of_grey_images_with_constant_borders_is_finite_and_invertible():
    flow = _flow((1, 8, 8), levels=2, flows=2).float()
    x = torch.full((128, 1, 8, 8), -1.0)
    x[:, :, 2:6, 2:6] = 0.3 * _images(128, 1, 4, 4, dtype=torch.float32)
    z = flow.initialize(x)
    assert torch.isfinite(z).all()
    assert torch.isfinite(flow(x)[1]).all()
    assert (flow.inverse(z)[0] - x).abs().max() < 1e-4


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 12, 16), (3, 16, 12), (3, 4, 8), (1, 7, 7)])
def test_size_that_does_not_divide_is_refused(shape):
    with pytest.raises(ValueError, match=rf"{shape[1]}×{shape[2]}"):
        MatrixExponentialFlow(shape, [1] * 3, [1] * 3, [4] * 3)


@pytest.mark.parametrize("lists", [([1], [1, 1], [4]), ([1, 1], [1, 1], [4]), ([1, 1], [1], [4, 4]), ([], [], [])])
def test_lists_of_different_lengths_are_refused(lists):
    with pytest.raises(ValueError, match="hidden_channels: .*{}, {}, {}".format(*map(len, lists))):
        MatrixExponentialFlow((1, 8, 8), *lists)


def test_settings_of_one_list_need_an_entry():
    class Own(LevelSettings):
        """Only `num_flows`."""

    with pytest.raises(ValueError, match="num_flows"):
        Own(num_flows=[])


@pytest.mark.parametrize("shape", [(8, 8), (1, 1, 8, 8), (0, 8, 8)])
def test_shape_that_is_none_is_refused(shape):
    with pytest.raises(ValueError, match=r"\(C, H, W\)"):
        MatrixExponentialFlow(shape, [1], [1], [4])


# ---- the paper's size ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def paper_flow():
    torch.manual_seed(0)
    return MatrixExponentialFlow((3, 32, 32), [8, 8, 8], [8, 4, 2], [128, 128, 128])


def test_papers_flow_has_42_8_million_parameters(paper_flow):
    assert sum(parameter.numel() for parameter in paper_flow.parameters()) == pytest.approx(42.8e6, abs=0.1e6)


def test_papers_flow_is_inverted_in_float32(paper_flow):
    generator = torch.Generator().manual_seed(0)
    x = 2 * torch.rand(16, 3, 32, 32, generator=generator) - 1
    paper_flow.initialize(x)
    x = x[:2]
    sizes = []
    for module in paper_flow.modules():
        if isinstance(module, Coupling):
            torch.nn.init.normal_(module.net.out.weight, std=0.015, generator=generator)
            module.net.register_forward_hook(lambda net, received, out: sizes.append(out.std().item()))
    with torch.no_grad():
        z, there = paper_flow(x)
    assert min(sizes) > 0.2
    with torch.no_grad():
        back, home = paper_flow.inverse(z)
    assert (back - x).abs().max() <= 1e-4
    torch.testing.assert_close(home, -there, rtol=1e-5, atol=1e-2)


def test_the_initialisation_of_coupling_nets_is_a_setting():
    uniform = _flow(initialization="uniform")
    assert build_flow(uniform.description).settings == uniform.settings
    x = _images(8, 1, 4, 4)
    z = uniform.initialize(x)
    torch.testing.assert_close(uniform.inverse(z)[0], x)
    with pytest.raises(ValueError, match="initialization"):
        _flow(initialization="orthogonal")
