import pytest
import torch

from nfpi.data import training_transform

RGB, GREY = (3, 32, 32), (1, 28, 28)


def _image(shape, low=0):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(low, 256, shape, generator=generator, dtype=torch.uint8)


def _draws(transform, image, count=64):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return [transform(image) for _ in range(count)]


@pytest.mark.parametrize("shape", [RGB, GREY, (1, 8, 8), (3, 24, 40)])
@pytest.mark.parametrize("augmentation", ["flip", "shift", "released"])
def test_shape_and_dtype_stay(augmentation, shape):
    for changed in _draws(training_transform(augmentation, shape, True), _image(shape), 4):
        assert changed.shape == shape
        assert changed.dtype == torch.uint8


def test_nothing_to_change_is_none():
    assert training_transform("none", RGB, True) is None
    assert training_transform("flip", RGB, False) is None


def test_flip_gives_the_image_or_its_mirror_image_equally_often():
    image = _image(RGB)
    draws = _draws(training_transform("flip", RGB, True), image, 400)
    kept = sum(torch.equal(draw, image) for draw in draws)
    assert kept + sum(torch.equal(draw, image.flip(2)) for draw in draws) == 400
    assert 160 < kept < 240


@pytest.mark.parametrize("augmentation", ["shift", "released"])
def test_without_flip_nothing_is_mirrored(augmentation):
    """A ramp that rises to the right goes on rising."""
    ramp = (torch.arange(32, dtype=torch.uint8) * 4).expand(1, 32, 32).contiguous()
    for changed in _draws(training_transform(augmentation, (1, 32, 32), False), ramp):
        assert changed[0, :, -1].float().mean() > changed[0, :, 0].float().mean() + 60
    mirrored = _draws(training_transform(augmentation, (1, 32, 32), True), ramp)
    assert any(changed[0, :, -1].float().mean() < changed[0, :, 0].float().mean() for changed in mirrored)


def test_shift_gives_the_nine_neighbours():
    image = _image((1, 8, 8))
    padded = torch.nn.functional.pad(image.float(), (1, 1, 1, 1), mode="replicate").to(torch.uint8)
    expected = {padded[:, i : i + 8, j : j + 8].numpy().tobytes() for i in range(3) for j in range(3)}
    draws = _draws(training_transform("shift", (1, 8, 8), False), image, 200)
    assert {draw.numpy().tobytes() for draw in draws} == expected


@pytest.mark.parametrize("shape", [(1, 4, 4), (1, 8, 8), GREY, (1, 32, 32), (1, 64, 64)])
def test_released_leaves_a_constant_grey_image_alone(shape):
    """No black from beyond the padded edge is rotated in."""
    image = torch.full(shape, 200, dtype=torch.uint8)
    for changed in _draws(training_transform("released", shape, True), image, 200):
        assert torch.equal(changed, image)


def test_released_jitters_colours_within_its_bounds():
    image = torch.tensor([120, 100, 80], dtype=torch.uint8)[:, None, None].expand(RGB).contiguous()
    pixels = torch.stack([draw[:, 0, 0] for draw in _draws(training_transform("released", RGB, True), image, 200)])
    assert pixels.unique(dim=0).shape[0] > 20
    ratio = pixels.float().mean(1) / 100
    assert 0.88 < ratio.min() < 0.95
    assert 1.05 < ratio.max() < 1.12


def test_released_only_takes_values_that_were_there_when_grey():
    """Nearest-neighbour rotation, no jitter: no new grey value."""
    image = _image(GREY) // 64 * 64
    for changed in _draws(training_transform("released", GREY, True), image, 20):
        assert set(changed.unique().tolist()) <= set(image.unique().tolist())


def test_released_moves_the_centre_by_at_most_half_the_crop_margin():
    image = torch.zeros((1, 32, 32), dtype=torch.uint8)
    image[0, 15:17, 15:17] = 255
    centres = torch.stack(
        [c[0].nonzero().float().mean(0) for c in _draws(training_transform("released", (1, 32, 32), True), image)]
    )
    assert (centres - 15.5).abs().max() <= 2.5
    assert (centres - 15.5).abs().max() >= 1.5
