"""Latent-augmented variants of the training images, of pixels and of an autoencoder's latents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from nfpi.data.domain import choose_domain
from nfpi.data.store import ImageSet, read_image_set
from nfpi.data.writer import write_image_set
from nfpi.flows.registry import build_flow
from nfpi.model import ClassConditionalFlow
from nfpi.priors.gaussian import GaussianPrior
from nfpi.runtime.randomness import make_generator

from .conftest import FLOW, call, format_options

NFA = {"axes": 5, "variants": 3, "batch_size": 8}
NOISE = {"grey_noise": 0.05, "latent_noise": 0.05}


def augment(root: Path, model: str = "model", output: str = "augmented", **options: object) -> int:
    places = {"data": root, "model": root / model, "output": root / output}
    return call("augment", *format_options(**places, nfa=NFA | options.pop("nfa", {}), **options))


@pytest.fixture(scope="module")
def pixels(make_images) -> ImageSet:
    return make_images(per_class=10)


@pytest.fixture(scope="module")
def latents(pixels) -> ImageSet:
    """As an autoencoder would store them."""
    values = (pixels.images / 255.0 - 0.5).astype(np.float16)
    spread = values.astype(np.float64).std(0).transpose(2, 0, 1).tolist()
    return ImageSet(values, pixels.labels, {**pixels.meta, "extra": {"flip": False, "spread": spread}})


@pytest.fixture(params=["pixels", "latents"])
def root(tmp_path, request) -> Path:
    """A train split and a model that was made for it."""
    images = request.getfixturevalue(request.param)
    write_image_set(
        tmp_path / "train", images.images, images.labels, images.classes, name="toy", **images.meta["extra"]
    )
    train = read_image_set(tmp_path / "train")
    flow = build_flow({"kind": "matrix_exponential", "shape": train.shape, "settings": FLOW})
    stored = torch.from_numpy(np.array(train.images)).permute(0, 3, 1, 2)
    flow.initialize(choose_domain(train.meta, **NOISE).to_flow(stored, make_generator("cpu", 0)))
    data = {key: train.meta[key] for key in ("name", "classes", "dtype", "extra")}
    prior = GaussianPrior(torch.zeros(3, 64), torch.ones(3, 64))
    config = {"seed": 3, "training": NOISE, "data": data}
    ClassConditionalFlow(flow, prior, config).save_pretrained(tmp_path / "model")
    return tmp_path


def test_all_variants_of_an_image_follow_each_other(root):
    assert augment(root, seed=3) == 0
    train, augmented = read_image_set(root / "train"), read_image_set(root / "augmented")
    assert len(augmented) == 3 * len(train)
    assert np.array_equal(augmented.labels, train.labels.repeat(3))
    assert augmented.images.dtype == train.images.dtype
    expected = {"variants": 3, "strength": 0.5, "law": "beta", "concentration": 1.0, "axes": 5, "seed": 3}
    expected["of"] = train.meta["sha256"]
    assert augmented.meta["extra"] == {**train.meta["extra"], **expected}
    assert len(np.unique(augmented.images.reshape(90, -1), axis=0)) == 90
    images, variants = (some.images.astype(float).reshape(len(some), -1) for some in (train, augmented))
    nearest = ((variants[:, None] - images) ** 2).sum(2).argmin(1)
    assert np.array_equal(train.labels[nearest], augmented.labels)


def test_noise_makes_another_set_that_says_so(root, caplog):
    with caplog.at_level("INFO"):
        assert augment(root, seed=3) == augment(root, output="noisy", displacement="noise", seed=3) == 0
    mixed, noisy = (read_image_set(root / name) for name in ("augmented", "noisy"))
    assert "displacement" not in mixed.meta["extra"]
    assert noisy.meta["extra"].pop("displacement") == "noise"
    assert noisy.meta["extra"] == mixed.meta["extra"]
    assert not np.array_equal(noisy.images, mixed.images)
    assert np.array_equal(noisy.labels, mixed.labels)


def test_strength_0_repeats_the_images(root):
    assert augment(root, nfa={"strength": 0}) == 0
    train, augmented = read_image_set(root / "train"), read_image_set(root / "augmented")
    gap = np.abs(augmented.images.astype(float) - train.images.repeat(3, 0).astype(float))
    assert gap.max() <= (1 if train.images.dtype == np.uint8 else 1e-3)


def test_the_seed_makes_the_set(root):
    for output, seed in (("first", 3), ("again", 3), ("other", 4)):
        assert augment(root, output=output, seed=seed) == 0
    first, again, other = (read_image_set(root / name).meta["sha256"] for name in ("first", "again", "other"))
    assert first == again
    assert first["images.npy"] != other["images.npy"]
