"""A preset for images of the user's own: what it says of them, and that the project takes it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nfpi.checks.batches import Measured
from nfpi.config.datasets import DatasetBlock
from nfpi.config.priors import DEFAULT_RELATIVE_WEIGHT, compute_weight
from nfpi.config.resolution import resolve
from nfpi.config.settings import Config
from nfpi.data.sources.imagefolder import list_image_folder

from .conftest import ROOT, call, read_error_line


def make_images(folder: Path, size: tuple[int, int] = (8, 8), classes: tuple[str, ...] = ("ant", "bee"), n: int = 12):
    """Class folders with n grey images each of (H, W) pixels."""
    generator = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for index in range(n):
            Image.fromarray(generator.integers(0, 256, size, np.uint8)).save(folder / name / f"{index}.png")
    return folder


def settings(preset: Path) -> Config:
    """What the project makes of a preset."""
    return resolve(ROOT / "config.yaml", ROOT / "presets", {"preset": str(preset)}).config


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder to work in, with no file but that of the workflow; every batch takes 10 ms."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here/Snakefile").touch()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr("nfpi.checks.batches.measure_step", lambda *arguments: Measured(0.01, 0.0))
    return tmp_path / "here"


def test_a_preset_says_what_the_images_are(here, tmp_path, capsys):
    images = make_images(tmp_path / "pets")
    assert call("new", images) == 0
    printed = capsys.readouterr().out
    assert "2 classes of 12 images, 24 in all, of 8×8 pixels, in grey" in printed
    assert printed.endswith("run: nfpi run all --config preset=pets.yaml\n")
    config = settings(here / "pets.yaml")
    expected = DatasetBlock(
        source="imagefolder", folder=images, validation_fraction=0.1, test_fraction=0.2, classes=2, shape=(8, 8, 1)
    )
    assert config.datasets["pets"] == expected
    experiment, *others = config.tables["table2"].experiments
    assert [other.classifier for other in others] == ["lda", "qda", "resnet18_real"]
    weights = [compute_weight(share * DEFAULT_RELATIVE_WEIGHT, 10, 2, 64) for share in (0, 1 / 5, 1, 5)]
    assert (experiment.dataset, experiment.lambdas) == ("pets", weights)
    assert config.figures["samples_by_weight"].lambdas == weights
    training, resnet18 = config.training, config.classifiers["resnet18_real"]
    assert (training.epochs, training.warmup_steps) == (400, 80)  # two steps an epoch
    assert (resnet18.batch_size, resnet18.epochs) == (32, 300)


@pytest.mark.parametrize(
    ("size", "image_size", "levels"),
    [
        ((8, 8), None, 2),
        ((32, 32), None, 3),
        ((16, 64), None, 2),
        ((30, 30), 28, 2),
        ((200, 300), 32, 3),
        ((3, 9), 4, 2),
    ],
)
def test_the_flows_levels_divide_the_size(here, tmp_path, size, image_size, levels):
    assert call("new", make_images(tmp_path / "pets", size)) == 0
    config = settings(here / "pets.yaml")
    assert config.datasets["pets"].image_size == image_size
    assert len(config.flows["mef"].num_flows) == levels
    assert all(side % 2**levels == 0 for side in ((image_size,) if image_size else size))


def test_images_of_several_sizes_are_resized(here, tmp_path, capsys):
    images = make_images(tmp_path / "pets", (40, 40))
    Image.new("RGB", (20, 35)).save(images / "bee/5.png")
    assert call("new", images) == 0
    assert "24 in all, of several sizes, in" in capsys.readouterr().out
    assert settings(here / "pets.yaml").datasets["pets"].image_size == 20


@pytest.mark.parametrize(("count", "taken"), [(700, 500), (520, None)], ids=["many", "few are left for training"])
def test_of_many_images_some_are_taken(here, tmp_path, count, taken):
    images = make_images(tmp_path / "pets")
    for index in range(12, count):
        shutil.copy(images / "ant/0.png", images / f"ant/{index}.png")
    assert call("new", images) == 0
    assert settings(here / "pets.yaml").datasets["pets"].train_per_class == taken


@pytest.mark.parametrize(("side", "augmentation"), [(16, "flip"), (20, "shift")])
def test_all_but_small_images_are_shifted(here, tmp_path, side, augmentation):
    assert call("new", make_images(tmp_path / "pets", (side, 16))) == 0
    made = settings(here / "pets.yaml")
    assert made.training.augmentation == augmentation
    # scikit-learn's classifiers are of square images
    classifiers = {row.classifier for row in made.tables["table2"].experiments if row.prior is None}
    assert classifiers == ({"lda", "qda", "resnet18_real"} if side == 16 else {"resnet18_real"})


@pytest.mark.parametrize(
    ("classes", "n", "fractions"), [(40, 12, (0.2, 0.2)), (3, 4, (0.25, 0.25)), (30, 4, (0.25, 0.333))]
)
def test_all_classes_have_images_in_all_splits(here, tmp_path, classes, n, fractions):
    names = tuple(f"class{index:02}" for index in range(classes))
    assert call("new", make_images(tmp_path / "pets", classes=names, n=n)) == 0
    chosen = settings(here / "pets.yaml").datasets["pets"]
    assert (chosen.test_fraction, chosen.validation_fraction) == fractions


@pytest.mark.parametrize("output", [None, "presets/pets.yml", "presets/null.yaml"])
def test_a_preset_in_a_clone_is_named_by_its_path(here, tmp_path, capsys, output):
    (here / "presets").mkdir()
    options = ("--output", output) if output else ()
    assert call("new", make_images(tmp_path / "pets"), *options) == 0
    assert capsys.readouterr().out.endswith(f"preset={output or 'pets.yaml'}\n")


@pytest.mark.parametrize(
    ("folder", "dataset"),
    [
        ("My pets, 2026!", "My-pets-2026"),
        ("2026-02-30", "2026-02-30"),  # YAML refuses a date that does not exist
        ("null", "null"),
        ("cifar10", "cifar10-images"),
        ("?!", "images"),
        ("Käfer: #1 'x' \"y\"", "K-fer-1-x-y"),
    ],
)
def test_any_name_of_a_folder_gives_a_data_set(here, tmp_path, folder, dataset):
    images = make_images(tmp_path / folder)
    assert call("new", images) == 0
    known = set(resolve(ROOT / "config.yaml", ROOT / "presets").config.datasets)
    config = settings(here / f"{dataset}.yaml")
    assert set(config.datasets) - known == {dataset}
    assert config.datasets[dataset].folder == images


def test_the_folder_that_one_is_in_has_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(make_images(tmp_path / "pets"))
    assert call("new", ".", "--output", tmp_path / "mine.yaml") == 0
    assert settings(tmp_path / "mine.yaml").datasets["pets"].folder == tmp_path / "pets"


def test_an_archive_is_looked_into(here, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "pets"), "zip", make_images(tmp_path / "files"))
    assert call("new", archive) == 0
    assert settings(here / "pets.yaml").datasets["pets"].folder == Path(archive)


def test_no_file_is_overwritten(here, tmp_path, capsys):
    (here / "pets.yaml").write_text("seeds: [5]\n")
    images = make_images(tmp_path / "pets")
    assert call("new", images) == 1
    assert read_error_line(capsys).startswith("nfpi: error: pets.yaml: ")
    assert (here / "pets.yaml").read_text() == "seeds: [5]\n"
    assert call("new", images, "--output", "below/other.yaml") == 0
    assert (here / "below/other.yaml").is_file()


@pytest.mark.parametrize("output", ["pets.txt", "my pets.yaml", "pets"])
def test_a_file_that_can_be_no_preset_is_refused(here, tmp_path, capsys, output):
    assert call("new", make_images(tmp_path / "pets"), "--output", output) == 1
    assert read_error_line(capsys).startswith(f"nfpi: error: {output}: ")
    assert [path.name for path in here.iterdir()] == ["Snakefile"]


def test_all_damaged_images_are_named_and_can_be_skipped(here, tmp_path, capsys):
    images = make_images(tmp_path / "pets")
    content = (images / "bee/3.png").read_bytes()
    (images / "bee/3.png").write_bytes(content[: len(content) // 2])
    (images / "ant/new.jpg").write_bytes(b"no image")
    assert call("new", images) == 1
    assert "2 images cannot be used: ant/new.jpg, bee/3.png (first: " in read_error_line(capsys)
    assert call("new", images, "--skip-damaged") == 0
    skip = settings(here / "pets.yaml").datasets["pets"].skip
    assert skip == ("ant/new.jpg", "bee/3.png")
    assert len(list_image_folder(images, skip).names["train"]) == 23


def test_what_is_no_folder_of_images_is_refused(here, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "nowhere", tmp_path / "empty", make_images(tmp_path / "few", n=2)):
        assert call("new", place) == 1
        assert f"{place.name}: " in read_error_line(capsys)
    assert [path.name for path in here.iterdir()] == ["Snakefile"]
