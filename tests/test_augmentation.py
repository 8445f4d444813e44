from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nfpi.augmentation import (
    augment_images,
    compute_principal_axes,
    move_latents,
)
from nfpi.config.flows import Displacement, NfaConfig
from nfpi.data import DataError, Domain, ImageSet, choose_domain
from nfpi.flows import MatrixExponentialFlow
from nfpi.runtime.randomness import make_generator

CPU = torch.device("cpu")
COLOUR = (3, 4, 4)


def axes_of(latents: Tensor, num_axes: int, rows: int = 64, seed: int = 0) -> Tensor:
    axes, converged = compute_principal_axes(latents.split(rows), num_axes, make_generator(CPU, seed))
    assert converged
    return axes


def correlated(count: int, dims: int, *, decay: float = 0.7, seed: int = 0) -> Tensor:
    """Latents off the origin whose k-th axis has the standard deviation decayᵏ."""
    generator = make_generator(CPU, seed)
    scale = decay ** torch.arange(dims)
    rotation = torch.linalg.qr(torch.randn(dims, dims, generator=generator)).Q
    return torch.randn(count, dims, generator=generator) * scale @ rotation + 5


def exact_axes(latents: Tensor) -> Tensor:
    """All principal axes, the strongest first, by a full SVD."""
    precise = latents.double()
    return torch.linalg.svd(precise - precise.mean(0), full_matrices=False).Vh.T


# ---- axes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "dims", "num_axes"), [(300, 60, 8), (40, 200, 8), (30, 100, 20), (200, 12, 12)])
def test_axes_span_what_an_exact_svd_finds(count, dims, num_axes):
    latents = correlated(count, dims)
    axes, exact = axes_of(latents, num_axes), exact_axes(latents)[:, :num_axes]
    assert axes.shape == (dims, num_axes)
    assert torch.allclose(axes.T @ axes, torch.eye(num_axes, dtype=torch.float64), atol=1e-10)
    cosines = torch.linalg.svdvals(axes.T @ exact)  # of the principal angles
    assert cosines.min() > 1 - 1e-6
    assert torch.allclose((axes * exact).sum(0).abs(), torch.ones(num_axes, dtype=torch.float64), atol=1e-4)


@pytest.mark.parametrize("decay", [0.99, 1.0])
def test_a_flat_spectrum_loses_little_variance(decay):
    """Where no axis stands out the span is not unique; the variance in it is. Of white latents too."""
    latents = correlated(400, 150, decay=decay)
    centred = latents.double() - latents.double().mean(0)
    captured = (centred @ axes_of(latents, 20)).square().sum()
    assert captured > 0.995 * (centred @ exact_axes(latents)[:, :20]).square().sum()


def test_there_are_no_more_axes_than_latents_have():
    few, small = correlated(5, 30, decay=1.0), correlated(50, 6)
    assert axes_of(few, 64).shape == (30, 4)
    centred = few.double() - few.double().mean(0)
    within = axes_of(few, 64)
    assert torch.allclose(centred @ within @ within.T, centred, atol=1e-8)  # N − 1 axes hold all of N latents
    assert axes_of(small, 64).shape == (6, 6)


def test_the_generator_is_all_of_the_randomness_of_axes():
    latents = correlated(100, 40, decay=0.97)
    torch.manual_seed(1)
    axes, state = axes_of(latents, 5), torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(axes, axes_of(latents, 5))
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(axes, axes_of(latents, 5, seed=1))


def test_latents_may_pass_by_without_being_kept():
    """Blocks that are made anew for each pass: few of them are alive at a time, and the axes are the same."""
    latents = correlated(96, 30)

    class Blocks:
        passes = alive = most = 0

        def __iter__(self) -> Iterator[Tensor]:
            self.passes += 1
            for start in range(0, 96, 8):
                block = latents[start : start + 8].clone()
                self.alive += 1
                self.most = max(self.most, self.alive)
                weakref.finalize(block, self._released)
                yield block
                del block

        def _released(self) -> None:
            self.alive -= 1

    blocks = Blocks()
    axes, _ = compute_principal_axes(blocks, 6, make_generator(CPU, 0))
    gc.collect()
    assert blocks.passes > 4
    assert blocks.most <= 3  # of twelve: until its name is bound anew, a block outlives its turn
    assert torch.allclose(axes, axes_of(latents, 6, rows=96), atol=1e-8)


# ---- mixing -------------------------------------------------------------------------------------------------


def test_a_mix_moves_a_share_of_the_way_within_the_span_and_nowhere_else():
    generator = make_generator(CPU, 0)
    axes = torch.linalg.qr(torch.randn(12, 4, generator=generator, dtype=torch.float64)).Q
    z, partner = torch.randn(2, 7, 12, generator=generator, dtype=torch.float64)
    share = torch.rand(7, generator=generator, dtype=torch.float64)
    moved = move_latents(z, partner, axes, share) - z
    assert torch.allclose(moved @ axes, share[:, None] * ((partner - z) @ axes))
    assert torch.allclose(moved @ axes @ axes.T, moved)
    assert torch.equal(move_latents(z, partner, axes, torch.zeros(7, dtype=torch.float64)), z)
    whole = torch.eye(12, dtype=torch.float64)
    assert torch.allclose(move_latents(z, partner, whole, torch.ones(7, dtype=torch.float64)), partner)


def test_noise_moves_as_far_as_a_mix_but_out_of_the_span():
    generator = make_generator(CPU, 0)
    axes = torch.linalg.qr(torch.randn(12, 4, generator=generator, dtype=torch.float64)).Q
    z, partner, direction = torch.randn(3, 7, 12, generator=generator, dtype=torch.float64)
    share = torch.rand(7, generator=generator, dtype=torch.float64)
    mixed, moved = (move_latents(z, partner, axes, share, along) - z for along in (None, direction))
    assert torch.allclose(moved.norm(dim=1), mixed.norm(dim=1))
    assert torch.allclose(moved / moved.norm(dim=1, keepdim=True), direction / direction.norm(dim=1, keepdim=True))
    assert torch.equal(move_latents(z, partner, axes, 0 * share, direction), z)


# ---- images -------------------------------------------------------------------------------------------------


def made_flow(images: ImageSet, domain: Domain) -> MatrixExponentialFlow:
    """A flow that is initialised on the images and whose couplings do something."""
    torch.manual_seed(0)
    flow = MatrixExponentialFlow(images.shape, [2, 1], [1, 1], [8, 8])
    stored = torch.from_numpy(images.images).permute(0, 3, 1, 2)
    flow.initialize(domain.to_flow(stored, make_generator(CPU, 0)))
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return flow


def pixels(images: ImageSet, grey_noise: float = 0.05) -> Domain:
    return choose_domain(images.meta, grey_noise=grey_noise, latent_noise=0.05)


def latents_of_an_autoencoder(images: ImageSet) -> ImageSet:
    values = (images.images / 255.0 - 0.5).astype(np.float16)
    spread = values.astype(np.float64).std(0).transpose(2, 0, 1).tolist()
    return ImageSet(values, images.labels, {**images.meta, "dtype": "float16", "extra": {"spread": spread}})


@pytest.fixture(scope="module")
def images(make_images) -> ImageSet:
    return make_images(COLOUR, per_class=12)


@pytest.fixture(scope="module")
def flow(images) -> MatrixExponentialFlow:
    return made_flow(images, pixels(images))


def variants_of(
    flow: nn.Module,
    images: ImageSet,
    indices: list[int] | None = None,
    *,
    seed: int = 3,
    displacement: Displacement = "mix",
    **changes,
) -> Tensor:
    config = NfaConfig(**({"axes": 4, "variants": 2, "batch_size": 5} | changes))
    chosen = list(range(len(images))) if indices is None else indices
    batches = augment_images(
        flow,
        images,
        config,
        seed=seed,
        domain=pixels(images),
        indices=np.array(chosen),
        displacement=displacement,
    )
    variants = {index: some for places, block in batches for index, some in zip(places.tolist(), block, strict=True)}
    return torch.stack([variants[index] for index in chosen])


def stored(images: ImageSet) -> Tensor:
    """(N, 1, C, H, W), to be held against variants."""
    return torch.from_numpy(images.images).permute(0, 3, 1, 2)[:, None]


@pytest.mark.parametrize("displacement", ["mix", "noise"])
@pytest.mark.parametrize("shape", [COLOUR, (1, 8, 8)])
def test_strength_0_gives_the_image_back(make_images, shape, displacement):
    """The flow's noise goes as it came, that of grey images (up to 13 grey levels) too."""
    images = make_images(shape, per_class=12, noise=40)
    flow = made_flow(images, pixels(images))
    z = flow(torch.rand(2, *shape))[0]
    assert (z - torch.rand(2, *shape)).abs().max() > 0.1  # this is not the identity
    back = variants_of(flow, images, strength=0.0, displacement=displacement)
    assert torch.equal(back, stored(images).expand_as(back))


def test_strength_0_gives_latents_of_an_autoencoder_back(make_images):
    images = latents_of_an_autoencoder(make_images(COLOUR, per_class=12))
    flow = made_flow(images, pixels(images))
    back = variants_of(flow, images, strength=0.0)
    assert back.dtype == torch.float16
    assert (back.float() - stored(images).float()).abs().max() < 1e-3
    assert (variants_of(flow, images).float() - stored(images).float()).abs().max() > 0.05


def test_two_images_that_go_all_of_the_way_become_each_other(make_images):
    """Between two latents there is one axis, so the span holds the whole way, through any flow."""
    images = make_images(COLOUR, per_class=2, noise=40)
    flow = made_flow(images, pixels(images))
    swapped = variants_of(flow, images, axes=3, law="fixed", strength=1.0)
    other = np.array(
        [np.flatnonzero((images.labels == y) & (np.arange(6) != n))[0] for n, y in enumerate(images.labels)]
    )
    gap = (swapped.int() - stored(images)[other].int()).abs()
    assert gap.max() <= 2  # two draws of dequantisation noise are less than a level apart
    assert (stored(images)[other].int() - stored(images).int()).abs().max() > 40


def test_halfway_latents_lie_between_their_images(make_images):
    images = make_images(COLOUR, per_class=2, noise=40)
    flow, domain = made_flow(images, pixels(images)), pixels(images)
    halfway = variants_of(flow, images, law="fixed", strength=0.5, variants=1)[:, 0]
    with torch.no_grad():
        ends, middle = (flow(domain.to_flow(some, None) + 1 / 256)[0] for some in (stored(images)[:, 0], halfway))
    for k in range(3):
        first, second = np.flatnonzero(images.labels == k)
        expected = (ends[first] + ends[second]) / 2
        for n in (first, second):
            assert (middle[n] - expected).norm() < 0.1 * (ends[first] - ends[second]).norm()


class Identity(nn.Module):
    """z = x, and an inverse that overflows where `fails` says so."""

    def __init__(self, shape: tuple[int, int, int], fails=None) -> None:
        super().__init__()
        self.shape, self.fails = shape, fails
        self.sizes: list[int] = []

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.sizes.append(len(x))
        return x.clone(), torch.zeros(len(x))

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        self.sizes.append(len(z))
        x = z.view(-1, *self.shape).clone()
        if self.fails is not None:
            x[self.fails(x)] = torch.inf
        return x, torch.zeros(len(z))


def plain(levels: list[int]) -> ImageSet:
    """One class of colour images of a single grey level each."""
    values = np.broadcast_to(np.array(levels, np.uint8)[:, None, None, None], (len(levels), 4, 4, 3))
    return ImageSet(values, np.zeros(len(levels), np.int64), {"name": "plain", "classes": ["all"], "extra": {}})


def test_noise_is_as_large_as_the_mix_of_each_image_and_isotropic(make_images):
    """Of an autoencoder's latents, which are not rounded to grey levels, under a flow that changes nothing."""
    images = latents_of_an_autoencoder(make_images(COLOUR, per_class=12))
    mixed, noisy = (
        (variants_of(Identity(COLOUR), images, displacement=how, variants=40).double() - stored(images).double())
        for how in ("mix", "noise")
    )
    norms = [moved.flatten(2).norm(dim=2) for moved in (mixed, noisy)]
    assert torch.allclose(*norms, rtol=0.02, atol=2e-3)
    assert norms[0].std() > 0.01
    directions = (noisy / norms[1][:, :, None, None, None]).flatten(0, 1).flatten(1)
    assert len(directions.unique(dim=0)) == 36 * 40
    covariance = directions.T @ directions / len(directions)
    assert (covariance * 48 - torch.eye(48)).abs().max() < 0.2  # E[u uᵀ] = I/D


def test_some_images_get_the_noise_they_get_among_all(flow, images):
    everything = variants_of(flow, images, displacement="noise")
    chosen = [30, 2, 17, 2]
    some = variants_of(flow, images, chosen, displacement="noise")
    assert (some.int() - everything[chosen].int()).abs().max() <= 1
    assert not torch.equal(everything, variants_of(flow, images))


def test_partners_are_all_the_others_and_never_the_image_itself():
    levels = [20, 60, 100, 140, 180]
    reached = variants_of(Identity(COLOUR), plain(levels), axes=4, law="fixed", strength=1.0, variants=200)
    nearest = ((reached.float().mean((2, 3, 4)) - 20) / 40).round().int()
    for n, partners in enumerate(nearest):
        counts = torch.bincount(partners, minlength=5)
        assert counts[n] == 0
        assert (counts[torch.arange(5) != n] > 25).all(), counts  # 50 are expected


@pytest.mark.parametrize("concentration", [0.5, 1.0, 4.0])
def test_the_share_of_the_way_follows_its_beta_law(concentration):
    settings = {"axes": 1, "strength": 0.5, "concentration": concentration, "variants": 2000}
    variants = variants_of(Identity(COLOUR), plain([20, 220]), [0], **settings)
    share = (variants[0].double().mean((1, 2, 3)) - 20) / 200
    assert share.min() > -0.01
    assert share.max() < 0.51
    assert share.mean() == pytest.approx(0.25, abs=0.012)
    assert share.var() == pytest.approx(0.5**2 / (4 * (2 * concentration + 1)), rel=0.1)


# ---- order, seeds, memory -----------------------------------------------------------------------------------


def test_every_image_comes_once_with_variants_of_its_own(flow, images):
    config = NfaConfig(axes=4, variants=3, batch_size=5)
    parts = list(augment_images(flow, images, config, seed=3, domain=pixels(images)))
    indices = np.concatenate([some for some, _ in parts])
    assert sorted(indices.tolist()) == list(range(36))
    assert {len(set(images.labels[some])) for some, _ in parts} == {1}
    for some, variants in parts:
        assert variants.shape == (len(some), 3, *COLOUR)
        assert variants.dtype == torch.uint8
        assert len(variants.flatten(0, 1).flatten(1).unique(dim=0)) == 3 * len(some)
        nearest = (variants[:, :, None].float() - stored(images)[None, None, :, 0].float()).square().sum((3, 4, 5))
        assert (images.labels[nearest.argmin(2).numpy()] == images.labels[some][:, None]).all()


def test_some_images_get_the_variants_they_get_among_all(flow, images):
    everything = variants_of(flow, images)
    chosen = [30, 2, 17, 2]
    some = variants_of(flow, images, chosen)
    assert (some.int() - everything[chosen].int()).abs().max() <= 1


def test_only_the_classes_asked_for_pass_through_the_flow(images):
    flow = Identity(COLOUR)
    variants_of(flow, images, [0], variants=2)
    assert sum(flow.sizes) == 12 + 2


def test_no_more_images_pass_at_a_time_than_a_batch(images):
    flow = Identity(COLOUR)
    variants_of(flow, images, batch_size=5)
    assert max(flow.sizes) == 5


def test_the_seed_is_all_of_the_randomness(flow, images):
    variants = variants_of(flow, images)
    torch.manual_seed(77)
    np.random.seed(77)  # noqa: NPY002
    assert torch.equal(variants, variants_of(flow, images))
    assert not torch.equal(variants, variants_of(flow, images, seed=4))


# ---- faults -------------------------------------------------------------------------------------------------


def test_latents_whose_inverse_overflows_are_drawn_again():
    """A partner out of reach is passed over; draws that were fine from the beginning stay."""
    images, settings = plain([20, 60, 100, 140, 180]), {"axes": 4, "law": "fixed", "strength": 1.0, "variants": 50}
    kept = variants_of(Identity(COLOUR), images, **settings)
    bright = Identity(COLOUR, lambda x: x.mean((1, 2, 3)) > 160 / 128 - 1)
    variants = variants_of(bright, images, **settings)
    assert kept.float().mean((2, 3, 4)).max() > 170
    assert variants.float().mean((2, 3, 4)).max() < 150
    fine = kept.float().mean((2, 3, 4)) < 150
    assert torch.equal(variants[fine], kept[fine])


def test_images_that_stay_not_finite_are_an_error(images):
    flow = Identity(COLOUR, lambda x: torch.arange(len(x)) == 0)
    match = r"class 'class0': 1 of 5 augmented images are still not finite after 10 draws; try a smaller strength"
    with pytest.raises(FloatingPointError, match=match):
        variants_of(flow, images)


def test_latents_that_are_not_finite_are_an_error(images):
    flow = made_flow(images, pixels(images))
    with torch.no_grad():
        next(flow.parameters()).fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="class 'class0'"):
        variants_of(flow, images)


def test_an_image_alone_in_its_class_has_no_partner(flow, images):
    lonely = ImageSet(images.images[:5], np.array([0, 0, 2, 0, 0]), images.meta)
    assert len(variants_of(flow, lonely, [0, 4])) == 2
    with pytest.raises(DataError, match=r"class 'class2'.*1"):
        variants_of(flow, lonely)


def test_images_of_another_size_than_the_flow_are_refused(flow, make_images):
    message = r"\(3, 4, 4\) for this flow, received \(1, 8, 8\)"
    with pytest.raises(ValueError, match=message):
        variants_of(flow, make_images())
