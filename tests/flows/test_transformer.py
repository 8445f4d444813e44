"""What the transformer flow's parts are, beyond being bijections."""

import pytest
import torch
import torch.nn.functional as F

from nfpi.config.flows import TransformerSettings
from nfpi.flows import FlowError, TransformerFlow, build_flow, check_flow
from nfpi.flows.transformer import Patches, TransformerBlock, TransformerCoupling, TransformerNet


def _images(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def _settings(**change):
    return TransformerSettings(**{"patch_size": 2, "num_flows": 4, "depth": 1, "width": 8, "num_heads": 2, **change})


def _flow(shape=(1, 8, 8), seed=0, **change):
    torch.manual_seed(seed)
    return TransformerFlow(shape, _settings(**change)).double()


def test_patches_are_ordered_row_by_row_and_their_numbers_by_row_column_channel():
    x = _images(2, 3, 4, 6)
    tokens, log_abs_det = Patches((3, 4, 6), 2)(x)
    assert tokens.shape == (2, 6, 12)
    assert log_abs_det == 0
    for row in range(2):
        for column in range(3):
            patch = x[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            assert torch.equal(tokens[:, 3 * row + column], patch.permute(0, 2, 3, 1).flatten(1))


@pytest.mark.parametrize(("shape", "size"), [((1, 2, 6), 1), ((3, 4, 6), 2), ((2, 9, 3), 3)])
def test_patches_are_put_together_again(shape, size):
    patches = Patches(shape, size)
    x = _images(2, *shape)
    assert torch.equal(patches.inverse(patches(x)[0])[0], x)


def test_block_is_softmax_attention_and_an_mlp(randomize):
    torch.manual_seed(0)
    block = randomize(TransformerBlock(6, 2))
    x = _images(2, 5, 6)
    normed = block.norm1(x)
    heads = []
    for head in range(2):
        part = slice(3 * head, 3 * head + 3)
        query, key, value = (layer(normed)[..., part] for layer in (block.query, block.key, block.value))
        heads.append(torch.softmax(query @ key.transpose(1, 2) / 3**0.5, -1) @ value)
    hidden = x + block.out(torch.cat(heads, -1))
    first, _, second = block.mlp
    torch.testing.assert_close(block(x), hidden + second(F.gelu(first(block.norm2(hidden)))))


def test_net_knows_the_position_of_a_token(randomize):
    torch.manual_seed(0)
    net = randomize(TransformerNet(4, 3, 2, width=8, num_heads=2, depth=1))
    out = net(_images(1, 1, 3).expand(1, 4, 3))[0]
    assert all((out[0] != out[token]).any() for token in range(1, 4))


@pytest.mark.parametrize("axis", [1, 2])
def test_coupling_is_affine_in_what_its_net_gives(axis, randomize):
    order = torch.randperm((5, 7)[axis - 1], generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    layer = randomize(TransformerCoupling(5, 7, axis, order, _settings()))
    x = _images(2, 5, 7)
    y, log_abs_det = layer(x)
    kept, mapped = order[: (len(order) + 1) // 2], order[(len(order) + 1) // 2 :]
    assert torch.equal(y.index_select(axis, kept), x.index_select(axis, kept))
    x2 = x.index_select(axis, mapped)
    shift, logit = layer.net(x.index_select(axis, kept))[:, : x2.shape[1]].chunk(2, 2)
    scale = 2 * torch.sigmoid(logit)
    torch.testing.assert_close(y.index_select(axis, mapped), (x2 + shift) * scale)
    torch.testing.assert_close(log_abs_det, scale.log().flatten(1).sum(1))


def test_new_couplings_are_the_identity():
    x = _images(2, 1, 8, 8)
    z, log_abs_det = _flow()(x)
    torch.testing.assert_close(z, x, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(log_abs_det, torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-4)


def test_couplings_split_channels_and_patches_in_turn():
    axes = [coupling.axis for coupling in _flow(num_flows=6, channel_couplings=2).couplings]
    assert axes == [2, 2, 1, 2, 2, 1]
    assert [coupling.axis for coupling in _flow(num_flows=3, channel_couplings=0).couplings] == [1, 1, 1]


def test_patches_are_split_in_a_checkerboard_by_rows_and_by_columns_both_ways():
    flow = _flow((1, 8, 8), num_flows=6, channel_couplings=0)
    halves = [coupling.order[:8].sort().values.tolist() for coupling in flow.couplings]
    checkerboard = [token for token in range(16) if (token // 4 + token % 4) % 2 == 0]
    rows = [token for token in range(16) if token // 4 % 2 == 0]
    columns = [token for token in range(16) if token % 2 == 0]
    for first, second, expected in zip(halves[::2], halves[1::2], [checkerboard, rows, columns], strict=True):
        assert first == expected
        assert second == sorted(set(range(16)) - set(expected))


def test_two_splits_of_the_channels_map_all_of_them(randomize):
    flow = randomize(_flow(num_flows=3, channel_couplings=1))
    x = _images(2, 1, 8, 8)
    assert (flow(x)[0] != x).all()
    first, second = flow.couplings[0].order, flow.couplings[2].order
    assert torch.equal(first, second.flip(0))


def test_orders_are_part_of_the_weights(randomize):
    flow = randomize(_flow(num_flows=8, patch_size=4))
    torch.manual_seed(1)
    again = build_flow(flow.description, flow.float().state_dict())
    x = _images(2, 1, 8, 8, dtype=torch.float32)
    assert torch.equal(again(x)[0], flow(x)[0])
    other = _flow(num_flows=8, patch_size=4, seed=1)
    assert any(not torch.equal(a.order, b.order) for a, b in zip(flow.couplings, other.couplings, strict=True))


def test_scale_is_bounded_above_however_large_the_nets_output_is(randomize):
    flow = randomize(_flow())
    for coupling in flow.couplings:
        coupling.net.out.bias.data += 1e6
    z, log_abs_det = flow(_images(2, 1, 8, 8))
    assert torch.isfinite(z).all()
    actnorm = flow.actnorm(_images(2, 1, 8, 8))[1]
    assert (log_abs_det - actnorm).max() <= 4 * 32 * torch.tensor(2.0).log() + 1e-9


def test_scale_is_not_bounded_below(randomize):
    """The inverse is lost with it; a training in which this happens shows it in its log-determinants."""
    flow = randomize(_flow())
    for coupling in flow.couplings:
        coupling.net.out.bias.data -= 1e6
    assert (flow(_images(2, 1, 8, 8))[1] < -1e6).all()
    with pytest.raises(FlowError):
        check_flow(flow, _images(2, 1, 8, 8))


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "size"), [(6, 4), (8, 8), (8, 1)])
def test_images_that_are_not_divided_into_patches_and_patches_not_into_numbers_are_refused(width, size):
    with pytest.raises(ValueError, match=f"patch_size {size}"):
        TransformerFlow((1, 8, width), _settings(patch_size=size))
    TransformerFlow((1, 8, 8), _settings(patch_size=1, channel_couplings=0))
