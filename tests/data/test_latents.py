"""From image files through a tiny autoencoder to latents, and back."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import nfpi.data.autoencoder as module
from nfpi.cli import main
from nfpi.config.datasets import DatasetConfig
from nfpi.data import (
    DataError,
    ImageSetWriter,
    choose_domain,
    encode_dataset,
    export_imagefolder,
    load_decoder,
    open_pixels,
    prepare_dataset,
    read_image_set,
    write_image_set,
)
from nfpi.data.autoencoder import decode, encode, load_autoencoder
from nfpi.data.image_files import read_image
from nfpi.runtime.signals import Interrupted
from nfpi.stages.prepare_data import EncodeData

diffusers = pytest.importorskip("diffusers")

SPLITS = ("train", "validation", "test")
SIZE = 16


@pytest.fixture(scope="module")
def vae(tmp_path_factory) -> Path:
    """Random weights; images of H×W pixels become latents of 4×H/2×W/2."""
    folder = tmp_path_factory.mktemp("vae")
    torch.manual_seed(0)
    autoencoder = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        sample_size=SIZE,
    )
    autoencoder.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    """split/class/image of scikit-learn's digits in three classes, RGB, of several sizes; ImageNet's two splits."""
    place = tmp_path_factory.mktemp("digits")
    settings = DatasetConfig(train_per_class=24, test_per_class=4)
    prepare_dataset("digits", settings, place / "sets", place)
    for split, folder in (("train", "train"), ("test", "val")):
        export_imagefolder(read_image_set(place / "sets" / split), place / "files" / folder)
        for index, path in enumerate(sorted((place / "files" / folder).rglob("*.png"))):
            if int(path.parent.name) > 2:
                path.unlink()
                continue
            with Image.open(path) as file:
                size = (20, 24) if index % 2 else (30, 18)
                image = file.resize(size, Image.Resampling.BICUBIC).convert("RGB")
            image.save(path)
    for empty in (path for path in (place / "files").glob("*/*") if not any(path.iterdir())):
        empty.rmdir()
    return place / "files"


@pytest.fixture(scope="module")
def config(digits, vae) -> DatasetConfig:
    return DatasetConfig(
        source="imagefolder",
        folder=digits,
        vae=vae,
        image_size=SIZE,
        validation_fraction=0.25,
        encode_batch_size=7,
        flip=False,
    )


def _encode(config: DatasetConfig, output: Path, **options) -> dict:
    downloads = output.parent.with_name(f"{output.parent.name}-downloads")
    encode_dataset("digits", config, output, downloads, "cpu", **options)
    return {split: read_image_set(output / split) for split in SPLITS}


@pytest.fixture(scope="module")
def splits(config, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("encoded") / "splits"
    _encode(config, folder)
    return folder


@pytest.fixture(scope="module")
def sets(splits) -> dict:
    return {split: read_image_set(splits / split) for split in SPLITS}


@pytest.fixture(scope="module")
def reference(splits, sets, digits, vae) -> dict[str, torch.Tensor]:
    """Unscaled latents (N, 4, 8, 8) of each split, straight from diffusers, of the files that the split names."""
    autoencoder = diffusers.AutoencoderKL.from_pretrained(vae)
    latents = {}
    for split in SPLITS:
        names = json.loads((splits / split / "files.json").read_text())
        pixels = np.stack([read_image(digits / name, SIZE)[0] for name in names])
        with torch.no_grad():
            x = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 * 2 - 1
            latents[split] = autoencoder.encode(x).latent_dist.mean
    return latents


def test_refit_encodes_the_validation_images_among_the_training_images(config, sets, tmp_path):
    refit = _encode(config.model_copy(update={"refit": True}), tmp_path / "splits")
    assert [len(refit[split]) for split in SPLITS] == [72, 0, 12]
    assert refit["validation"].shape == (4, 8, 8)
    assert len(open_pixels(tmp_path / "splits" / "validation")) == 0
    assert np.array_equal(refit["test"].labels, sets["test"].labels)


def test_latents_are_the_autoencoders_means_over_the_largest_of_the_training_set(sets, reference):
    scale = reference["train"].abs().max()
    for split, image_set in sets.items():
        assert image_set.images.dtype == np.float16
        assert image_set.shape == (4, 8, 8)
        assert image_set.meta["extra"]["scale"] == pytest.approx(float(scale), rel=1e-5)
        expected = (reference[split] / scale).permute(0, 2, 3, 1).numpy()
        np.testing.assert_allclose(image_set.images, expected, atol=2**-11)
    assert np.abs(sets["train"].images).max() == 1


def test_the_spread_is_each_elements_standard_deviation_over_the_training_set(sets):
    expected = sets["train"].images.astype(np.float64).std(0, ddof=1).transpose(2, 0, 1)
    for image_set in sets.values():
        spread = np.array(image_set.meta["extra"]["spread"])
        assert spread.shape == (4, 8, 8)
        np.testing.assert_allclose(spread, expected, rtol=2e-3)
    domain = choose_domain(sets["train"].meta, grey_noise=0.0, latent_noise=0.05)
    np.testing.assert_allclose(domain.spread, expected, rtol=2e-3)


def test_val_is_the_test_split_and_validation_is_held_out_of_train(sets, splits):
    names = {split: json.loads((splits / split / "files.json").read_text()) for split in SPLITS}
    assert {name.split("/")[0] for name in names["test"]} == {"val"}
    assert {name.split("/")[0] for name in names["train"] + names["validation"]} == {"train"}
    assert not set(names["train"]) & set(names["validation"])
    assert [np.bincount(sets[split].labels).tolist() for split in SPLITS] == [[18] * 3, [6] * 3, [4] * 3]
    assert [sets[split].meta["split"] for split in SPLITS] == list(SPLITS)


def test_neither_workers_nor_the_size_of_a_batch_change_the_latents(config, sets, tmp_path):
    other = config.model_copy(update={"encode_batch_size": 100})
    found = _encode(other, tmp_path / "splits", workers=3)
    for split in SPLITS:
        assert np.array_equal(found[split].labels, sets[split].labels)
        np.testing.assert_allclose(found[split].images, sets[split].images, atol=2**-10)
    assert [path.name for path in tmp_path.iterdir()] == ["splits"]


def test_images_are_split_as_pixels_would_be(config, splits, sets, tmp_path):
    """The same fractions, limits and seed choose the same images, whichever form they are kept in."""
    pixels = config.model_copy(update={"vae": None})
    prepare_dataset("digits", pixels, tmp_path / "pixels", tmp_path)
    for split in SPLITS:
        prepared = read_image_set(tmp_path / "pixels" / split)
        assert np.array_equal(prepared.labels, sets[split].labels)
        originals = open_pixels(splits / split)
        for index in (0, len(originals) // 2, -1):
            cropped = read_image(originals.folder / str(originals.file_names[index]), SIZE)[0]
            assert np.array_equal(prepared.images[index], cropped)


def test_a_batch_is_read_at_a_time(config, tmp_path, monkeypatch):
    """Of images read but not yet encoded there are never more than two batches."""
    read, encoded, most = [], [], [0]

    def counted_read(*arguments):
        read.append(arguments)
        most[0] = max(most[0], len(read) - sum(encoded))
        return read_image(*arguments)

    def counted_encode(autoencoder, images):
        encoded.append(len(images))
        return encode(autoencoder, images)

    monkeypatch.setattr("nfpi.data.autoencoder.read_image", counted_read)
    monkeypatch.setattr("nfpi.data.autoencoder.encode", counted_encode)
    _encode(config, tmp_path / "splits", workers=2)
    assert sum(encoded) == 84
    assert len(read) == 85  # the first one once more, for its size
    assert max(encoded) == 7
    assert most[0] <= 14 + 1


# ---- pixels for classifiers ---------------------------------------------------------------------------------


def test_pixels_of_latents_are_the_original_files(splits, sets, digits):
    pixels = open_pixels(splits / "train")
    assert len(pixels) == 54
    images = pixels.image_set
    assert np.array_equal(images.labels, sets["train"].labels)
    sizes = set()
    for index in range(len(pixels)):
        name = str(pixels.file_names[index])
        assert images.classes[images.labels[index]] == name.split("/")[1]
        with Image.open(digits / name) as file:
            expected = np.asarray(file)
        assert pixels[index].dtype == torch.uint8
        assert np.array_equal(pixels[index].permute(1, 2, 0), expected)
        sizes.add(tuple(pixels[index].shape))
    assert sizes == {(3, 24, 20), (3, 18, 30)}


def test_pixels_of_an_image_set_are_its_own(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), np.uint8)
    write_image_set(tmp_path / "set", images, np.array([0, 1, 1, 0]), ["a", "b"])
    pixels = open_pixels(tmp_path / "set")
    assert pixels.file_names is None
    assert len(pixels) == 4
    assert pixels[2].shape == (3, 6, 5)
    assert np.array_equal(pixels[2].permute(1, 2, 0), images[2])
    pixels[2].zero_()  # a copy
    assert np.array_equal(pixels[2].permute(1, 2, 0), images[2])


def _copy(splits: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(splits / "test", tmp_path / "test"))


def test_a_missing_or_damaged_original_is_named(splits, digits, tmp_path):
    folder = _copy(splits, tmp_path)
    meta = json.loads((folder / "meta.json").read_text())
    meta["extra"]["image_folder"] = str(tmp_path / "elsewhere")
    (folder / "meta.json").write_text(json.dumps(meta))
    pixels = open_pixels(folder)
    path = tmp_path / "elsewhere" / str(pixels.file_names[0])
    with pytest.raises(DataError, match=f"{path}:.*one that cannot be read"):
        pixels[0]
    path.parent.mkdir(parents=True)
    path.write_bytes((digits / str(pixels.file_names[0])).read_bytes()[:60])
    with pytest.raises(DataError, match=f"{path}"):
        pixels[0]


def test_a_list_of_files_that_does_not_fit_is_refused(splits, tmp_path):
    folder = _copy(splits, tmp_path)
    names = json.loads((folder / "files.json").read_text())
    (folder / "files.json").write_text(json.dumps(names[:-1]))
    with pytest.raises(DataError, match=r"files\.json"):
        open_pixels(folder)
    (folder / "files.json").unlink()
    with pytest.raises(DataError, match=r"files\.json"):
        open_pixels(folder)


@pytest.mark.skipif(os.name != "posix", reason="file names are Unicode elsewhere")
def test_file_names_need_not_be_unicode(tmp_path):
    name = os.fsdecode(b"train/a/caf\xe9.png")
    latents = np.zeros((1, 2, 2, 4), np.float16)
    with ImageSetWriter(
        tmp_path / "set", 1, (2, 2, 4), ["a"], dtype=np.float16, originals=[name], image_folder=str(tmp_path)
    ) as writer:
        writer.put(np.array([0]), latents, np.array([0]))
    (tmp_path / "train/a").mkdir(parents=True)
    Image.new("RGB", (3, 2), (9, 8, 7)).save(tmp_path / "one.png")
    (tmp_path / "one.png").rename(tmp_path / name)
    assert open_pixels(tmp_path / "set")[0][:, 0, 0].tolist() == [9, 8, 7]


# ---- back to pixels -----------------------------------------------------------------------------------------


def test_decoding_takes_the_scale_back(splits, sets, reference, vae):
    """Decoded are the latents that the autoencoder itself gave, but for half precision."""
    image_set = sets["validation"]
    stored = torch.from_numpy(np.array(image_set.images)).permute(0, 3, 1, 2)
    autoencoder = diffusers.AutoencoderKL.from_pretrained(vae)
    with torch.no_grad():
        expected = autoencoder.decode(reference["validation"]).sample.clamp(-1, 1).add(1).mul(127.5)
    decoded = load_decoder(image_set.meta, "cpu")(stored)
    assert decoded.dtype == torch.uint8
    assert decoded.shape == (18, 3, SIZE, SIZE)
    assert (decoded.float() - expected).abs().max() <= 0.5 + 0.25
    assert expected.std() > 1  # it is no constant


# ---- faults -------------------------------------------------------------------------------------------------


def _refused(config: DatasetConfig, tmp_path: Path, match: str, **changes) -> None:
    with pytest.raises(DataError, match=match) as caught:
        _encode(config.model_copy(update=changes), tmp_path / "splits")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "splits").exists()


def test_without_diffusers_one_line_says_what_to_install(config, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    _refused(config, tmp_path, r"none")


def test_a_folder_that_holds_no_autoencoder_is_refused(config, tmp_path, vae):
    _refused(config, tmp_path, r"missing: .*config\.json", vae=tmp_path / "missing")
    empty = tmp_path / "empty"
    empty.mkdir()
    _refused(config, tmp_path, r"empty: .*config\.json", vae=empty)
    (empty / "config.json").write_bytes((vae / "config.json").read_bytes())
    weights = (vae / "diffusion_pytorch_model.safetensors").read_bytes()
    (empty / "diffusion_pytorch_model.safetensors").write_bytes(weights[: len(weights) // 2])
    _refused(config, tmp_path, "empty:.*something else", vae=empty)


@pytest.mark.parametrize("foreign", ["owner/name", ""])
def test_a_folder_of_an_autoencoder_named_by_a_foreign_model_has_its_two_files(tmp_path, monkeypatch, foreign):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="expected a diffusers AutoencoderKL"):
        load_decoder({"name": "foreign", "extra": {"vae": foreign, "scale": 1.0}}, "cpu")


def test_an_autoencoder_without_all_its_weights_is_refused(config, tmp_path, vae):
    part = tmp_path / "part"
    part.mkdir()
    (part / "config.json").write_bytes((vae / "config.json").read_bytes())
    weights = load_file(vae / "diffusion_pytorch_model.safetensors")
    del weights["quant_conv.bias"]
    save_file(weights, part / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    _refused(config, tmp_path, r"none for quant_conv\.bias", vae=part)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"source": "digits"}, "digits:"),
        ({"vae": None}, "with a vae"),
        ({"image_size": 15}, "image_size:.*15×15"),
        ({"image_size": None}, r"\.png: "),
        ({"train_per_class": 1}, "class '0', received 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(config, tmp_path, changes, match):
    _refused(config, tmp_path, match, **changes)


def test_a_damaged_image_is_named_and_nothing_is_left(config, digits, tmp_path):
    path = sorted((digits / "val" / "1").iterdir())[2]
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    try:
        _refused(config, tmp_path, f"{path}:.*one that cannot be read")
    finally:
        path.write_bytes(whole)
    assert list(tmp_path.iterdir()) == []


def test_latents_that_are_not_finite_are_refused(config, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "encode", lambda _, images: torch.full((len(images), 4, 8, 8), torch.nan))
    with pytest.raises(FloatingPointError, match="not finite"):
        _encode(config, tmp_path / "splits")


@pytest.mark.parametrize("batches", [0, 1, 4, 11])
def test_stopped_encoding_resumes(config, splits, sets, tmp_path, monkeypatch, batches):
    """In the training images or later; what was encoded is not encoded again, but for the batch it was stopped in."""
    encode, done, whole = module.encode, [], [-(-len(image_set) // 7) for image_set in sets.values()]
    assert sum(whole) > 11 > whole[0]

    def stopped(autoencoder, images):
        if len(done) == batches:
            raise Interrupted("SIGTERM")
        done.append(len(images))
        return encode(autoencoder, images)

    with monkeypatch.context() as patch:
        patch.setattr(module, "encode", stopped)
        with pytest.raises(Interrupted, match=r"kept \d+ of \d+"):
            _encode(config, tmp_path / "splits")
        assert not (tmp_path / "splits").exists()
        batches = 99
        _encode(config, tmp_path / "splits")
    assert len(done) == sum(whole)
    for file in splits.glob("*/*"):
        assert (tmp_path / "splits" / file.relative_to(splits)).read_bytes() == file.read_bytes(), file
    assert {path.name for path in (tmp_path / "splits").iterdir()} == {*SPLITS}
    assert [path.name for path in tmp_path.iterdir()] == ["splits"]


# ---- a flow on latents --------------------------------------------------------------------------------------


def _nfpi(*arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0, arguments


def test_the_stage_leaves_exactly_what_it_declares(config, splits, tmp_path):
    dataset = ("--dataset", config.model_dump_json())
    _nfpi("encode-data", "--name", "digits", *dataset, "--output", tmp_path / "splits")
    files = {path.relative_to(tmp_path / "splits").as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert files == set(EncodeData.outputs.values())
    for file in files - {"data.manifest.json"}:
        assert (tmp_path / "splits" / file).read_bytes() == (splits / file).read_bytes()


@pytest.fixture(scope="module")
def trained(splits, tmp_path_factory) -> Path:
    """The model of a flow that was trained on these latents."""
    folder = tmp_path_factory.mktemp("trained")
    training = {"epochs": 2, "batch_size": 18, "initialization_images": 54, "augmentation": "flip"}
    flow = {"num_flows": [2], "num_blocks": [1], "hidden_channels": [8]}
    _nfpi(
        *("start-flow", "--data", splits, "--flow", json.dumps(flow), "--training", json.dumps(training)),
        *("--output", folder / "initial"),
    )
    _nfpi("fit-prior", "--initial", folder / "initial", "--weight", 100, "--output", folder / "fit")
    _nfpi(
        *("train-flow", "--data", splits, "--initial", folder / "initial", "--prior", folder / "fit/prior.safetensors"),
        *("--training", json.dumps(training), "--output", folder),
    )
    return folder / "model"


def test_a_flow_on_latents_is_evaluated(splits, sets, trained, tmp_path):
    """Its bits are those of a density: near what Gaussians as wide as the autoencoder's latents would cost."""
    _nfpi("evaluate", "--data", splits, "--model", trained, "--output", tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())["metrics"]
    assert all(np.isfinite(value) for value in metrics.values())
    extra = sets["train"].meta["extra"]
    spread = np.array(extra["spread"]) * extra["scale"]
    entropy = np.mean(np.log2(spread * np.sqrt(2 * np.pi * np.e)))
    assert abs(metrics["bits_per_dim"] - entropy) < 1


def test_latents_drawn_from_a_flow_are_decoded(sets, trained, tmp_path):
    """The model alone says what latents these are."""
    _nfpi(
        *("generate", "--model", trained, "--per-class", 3, "--batch-size", 4, "--output", tmp_path / "generated"),
    )
    generated = read_image_set(tmp_path / "generated")
    assert (generated.images.dtype, generated.shape) == (np.float16, (4, 8, 8))
    assert generated.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    for key in ("spread", "scale", "vae", "flip"):
        assert generated.meta["extra"][key] == sets["train"].meta["extra"][key]
    drawn = torch.from_numpy(np.array(generated.images)).permute(0, 3, 1, 2)
    pixels = load_decoder(generated.meta, "cpu")(drawn)
    assert (pixels.dtype, pixels.shape) == (torch.uint8, (9, 3, SIZE, SIZE))
    assert len(pixels.flatten(1).unique(dim=0)) == 9
    with pytest.raises(DataError, match=r"files\.json"):  # drawn latents are of no file
        open_pixels(tmp_path / "generated")


def test_latents_augmented_by_nothing_are_the_latents(splits, sets, trained, tmp_path):
    nfa = {"axes": 4, "strength": 0, "variants": 2}
    _nfpi(
        *("augment", "--data", splits, "--model", trained, "--nfa", json.dumps(nfa)),
        *("--output", tmp_path / "augmented"),
    )
    augmented = read_image_set(tmp_path / "augmented")
    np.testing.assert_allclose(augmented.images, sets["train"].images.repeat(2, axis=0), atol=2**-9)
    assert augmented.meta["extra"]["scale"] == sets["train"].meta["extra"]["scale"]


def test_images_are_encoded_in_tf32_and_nothing_else_is(vae, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    autoencoder = load_autoencoder(vae, "cpu")
    allowed = []
    for layer in (autoencoder.encoder.conv_in, autoencoder.decoder.conv_in):
        layer.register_forward_hook(lambda *_: allowed.append(torch.backends.cudnn.allow_tf32))
    latents = encode(autoencoder, torch.zeros(1, 3, SIZE, SIZE, dtype=torch.uint8))
    decode(autoencoder, latents)
    assert allowed == [True, False]
    assert not torch.backends.cudnn.allow_tf32
