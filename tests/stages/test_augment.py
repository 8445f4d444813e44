from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from nfpi.cli import main
from nfpi.data import ImageSet, domain_of, read_image_set, write_image_set
from nfpi.flows import MatrixExponentialFlow
from nfpi.priors import FixedPointDiverged
from nfpi.runtime.divergence import mark_tensors
from nfpi.runtime.randomness import generator_for
from nfpi.runtime.tensors import save_flow

NFA = {"axes": 5, "variants": 3, "batch_size": 8}


def run(root: Path, *options: object, flow: str = "flow.safetensors", output: str = "augmented") -> int:
    places = ("--data", root, "--flow", root / flow, "--output", root / output)
    return main([str(option) for option in ("augment", *places, "--nfa", json.dumps(NFA), *options)])


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
    """A train split and a flow that was made for it."""
    images = request.getfixturevalue(request.param)
    write_image_set(
        tmp_path / "train", images.images, images.labels, images.classes, name="toy", **images.meta["extra"]
    )
    train = read_image_set(tmp_path / "train")
    flow = MatrixExponentialFlow(train.shape, [1], [1], [8])
    noise = {"grey_noise": 0.05, "latent_noise": 0.05}
    stored = torch.from_numpy(np.array(train.images)).permute(0, 3, 1, 2)
    flow.initialize(domain_of(train.meta, **noise).to_flow(stored, generator_for("cpu", 0)))
    data = {key: train.meta[key] for key in ("name", "classes", "dtype", "extra")}
    save_flow(tmp_path / "flow.safetensors", flow, {"seed": 3, "training": noise, "data": data})
    return tmp_path


def test_all_variants_of_an_image_follow_each_other(root):
    assert run(root, "--seed", 3) == 0
    train, augmented = read_image_set(root / "train"), read_image_set(root / "augmented")
    assert len(augmented) == 3 * len(train)
    assert np.array_equal(augmented.labels, train.labels.repeat(3))
    assert augmented.images.dtype == train.images.dtype
    expected = {"variants": 3, "strength": 0.5, "law": "beta", "concentration": 1.0, "axes": 5, "seed": 3}
    expected["of"] = train.meta["sha256"]
    assert augmented.meta["extra"] == {**train.meta["extra"], **expected}
    assert augmented.meta["split"] == "augmented"
    assert len(np.unique(augmented.images.reshape(90, -1), axis=0)) == 90
    images, variants = (some.images.astype(float).reshape(len(some), -1) for some in (train, augmented))
    nearest = ((variants[:, None] - images) ** 2).sum(2).argmin(1)
    assert np.array_equal(train.labels[nearest], augmented.labels)


def test_strength_0_repeats_the_images(root):
    assert run(root, "--nfa.strength", 0) == 0
    train, augmented = read_image_set(root / "train"), read_image_set(root / "augmented")
    gap = np.abs(augmented.images.astype(float) - train.images.repeat(3, 0).astype(float))
    assert gap.max() <= (1 if train.images.dtype == np.uint8 else 1e-3)


def test_the_seed_makes_the_set(root):
    for output, seed in (("first", 3), ("again", 3), ("other", 4)):
        assert run(root, "--seed", seed, output=output) == 0
    first, again, other = (read_image_set(root / name).meta["sha256"] for name in ("first", "again", "other"))
    assert first == again
    assert first["images.npy"] != other["images.npy"]


def test_a_diverged_flow_gives_a_diverged_set(root):
    fault = FixedPointDiverged(iteration=2, class_index=1, quantity="A", weight=1e6)
    mark_tensors(root / "diverged.safetensors", fault)
    assert run(root, flow="diverged.safetensors") == 0
    assert json.loads((root / "augmented/meta.json").read_text())["diverged"]["weight"] == 1e6


def test_a_flow_of_other_classes_is_refused(root, pixels, capsys):
    write_image_set(root / "train", pixels.images, pixels.labels, ["a", "b", "c"], flip=False)
    assert run(root) == 1
    assert "expected the classes that" in capsys.readouterr().err
    assert not (root / "augmented").exists()
