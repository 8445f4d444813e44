"""Commands that use a model on image files of a user's own."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nfpi import ClassConditionalFlow
from nfpi.flows.registry import build_flow
from nfpi.priors import GaussianPrior
from nfpi.results.statistics.intervals import wilson_interval

from .conftest import call, list_files, read_error_line

CLASSES = ["1", "a,b", "sea/gull"]
FOLDERS = ["1", "a,b", "sea-gull"]
TINY = {"num_flows": [1], "num_blocks": [1], "hidden_channels": [8]}


@pytest.fixture(scope="module")
def trained_run(make_images, tmp_path_factory) -> Path:
    """A folder with a model of three classes, 20 images of each as files, and the images it was trained on as files."""
    folder = tmp_path_factory.mktemp("trained")
    images = make_images()
    fitted = ClassConditionalFlow.fit(
        images.images, images.labels, flow=TINY, epochs=6, weight=100, classes=CLASSES, progress=False
    )
    fitted.save_pretrained(folder / "model")
    for name, written in {"seen": images, "images": make_images(seed=1)}.items():
        for index, (image, label) in enumerate(zip(written.images, written.labels, strict=True)):
            path = folder / name / FOLDERS[label] / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[..., 0]).save(path)
    return folder


@pytest.fixture
def here(trained_run, tmp_path, monkeypatch) -> Path:
    """An empty folder to work in, beside the model and the images."""
    for name in ("model", "images", "seen"):
        (tmp_path / name).symlink_to(trained_run / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def model_and_images(here: Path) -> tuple[ClassConditionalFlow, list[Path], np.ndarray]:
    files = sorted((here / "images").rglob("*.png"))
    return (
        ClassConditionalFlow.from_pretrained(here / "model"),
        files,
        np.stack([np.asarray(Image.open(file))[..., None] for file in files]),
    )


# ---- classify -----------------------------------------------------------------------------------------------


def test_classify_prints_what_the_model_says(here, capsys, caplog):
    assert call("classify", "model", "images") == 0
    assert "these probabilities are not calibrated: nfpi calibrate model FOLDER --output NEW" in caplog.text
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines(), delimiter="\t"))
    model, files, images = model_and_images(here)
    assert [here / row["file"] for row in rows] == files
    log_posterior, predicted = model.predict_log_proba(images), model.predict(images)
    assert [row["class"] for row in rows] == [CLASSES[label] for label in predicted]
    ranked = np.sort(log_posterior, 1)
    columns = {
        "probability": 100 * np.exp(ranked[:, -1]),
        "margin": ranked[:, -1] - ranked[:, -2],
        "bits_per_dim": model.bits_per_dim(images, predicted),
    }
    for name, expected in columns.items():
        np.testing.assert_allclose([float(row[name]) for row in rows], expected, rtol=1e-12, atol=1e-12)


def test_a_model_in_the_cache_of_the_hub_is_read(here, capsys):
    """Where every file is a link."""
    cache = here / "models--own--flow"
    shutil.copytree(here / "model", cache / "blobs")
    (cache / "snapshots/1").mkdir(parents=True)
    for file in (cache / "blobs").iterdir():
        (cache / "snapshots/1" / file.name).symlink_to(f"../../blobs/{file.name}")
    printed = []
    for model in ("model", "models--own--flow/snapshots/1"):
        assert call("classify", model, "images/1") == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]


def test_foreign_names_of_classes_are_obeyed_by_no_terminal_and_no_spreadsheet(here, capsys, monkeypatch):
    names = ["=cmd|' /C calc'!A0", "\x1b[2J\x1b]0;title\x07", "@SUM(1)\n-9"]
    shutil.copytree(here / "model", here / "foreign")
    config = json.loads((here / "foreign/config.json").read_text(encoding="utf-8"))
    config["data"]["classes"] = names
    (here / "foreign/config.json").write_text(json.dumps(config), encoding="utf-8")
    shown = [names[0], r"\x1b[2J\x1b]0;title\x07", r"@SUM(1)\n-9"]
    assert call("classify", "foreign", "images", "--output", "table.csv") == 0
    with (here / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["class"] for row in rows} == {f"'{shown[0]}", shown[1], f"'{shown[2]}"}
    assert all(0 < float(row["probability"]) <= 100 for row in rows)
    capsys.readouterr()
    for is_terminal in (False, True):
        monkeypatch.setattr("sys.stdout.isatty", lambda is_terminal=is_terminal: is_terminal)
        monkeypatch.setenv("TERM", "dumb")
        assert call("classify", "foreign", "images") == 0
        text = capsys.readouterr().out
        assert "\x1b" not in text
        assert "\\x1b[2J" in text
    assert call("score", "foreign", "images") == 1  # no folder is named like these classes
    assert "\x1b" not in read_error_line(capsys)


def test_an_image_of_another_size_or_colour_is_named_or_converted(here, capsys):
    Image.new("RGB", (20, 16), (9, 9, 9)).save(here / "large.png")
    assert call("classify", "model", "images", "large.png", "--output", "t.csv") == 1
    assert read_error_line(capsys).startswith("nfpi: error: large.png: ")
    assert not (here / "t.csv").exists()
    assert call("classify", "model", "large.png", "--resize") == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_an_unreadable_file_is_named(here, capsys):
    whole = next((here / "images/1").iterdir()).read_bytes()
    (here / "cut.png").write_bytes(whole[:50])
    assert call("classify", "model", "images", "cut.png") == 1
    assert read_error_line(capsys).startswith("nfpi: error: cut.png: ")


# ---- calibrate ----------------------------------------------------------------------------------------------


def test_a_calibrated_model_says_of_each_image_whether_it_is_sure(here, capsys):
    assert call("calibrate", "model", "images", "--output", "calibrated") == 0
    model, files, images = model_and_images(here)
    model = model.calibrate(images, [FOLDERS.index(file.parent.name) for file in files])
    capsys.readouterr()
    assert call("classify", "calibrated", "images", "--coverage", 0.6) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines(), delimiter="\t"))
    assert [row["decision"] for row in rows] == model.decide(images, 0.6).tolist()
    expected = 100 * model.predict_proba(images).max(1)
    np.testing.assert_allclose([float(row["probability"]) for row in rows], expected, rtol=1e-6)


def test_a_model_that_is_not_calibrated_cannot_be_sure(here, capsys):
    assert call("classify", "model", "images", "--coverage", 0.9) == 1
    assert "expected a calibrated model" in read_error_line(capsys)


# ---- score --------------------------------------------------------------------------------------------------


def test_score_writes_what_evaluate_finds(here):
    assert call("score", "model", "images", "--output", "score.json") == 0
    found = json.loads((here / "score.json").read_text(encoding="utf-8"))
    model, files, images = model_and_images(here)
    labels = [FOLDERS.index(file.parent.name) for file in files]
    expected = model.evaluate(images, labels)
    assert found == {"model": "model", "images": "images", **json.loads(json.dumps(expected))}
    assert list(found["classes"]) == CLASSES
    right = sum(of["nf_acc"] * of["n"] for of in found["classes"].values()) / 100
    assert right == pytest.approx(found["nf_acc"] * found["n"] / 100)


def test_score_and_calibrate_leave_out_what_the_model_was_trained_on(here, capsys, caplog):
    shutil.copytree(here / "images", here / "all")
    for file in (here / "seen/1").iterdir():
        shutil.copy(file, here / f"all/1/seen-{file.name}")
    for folder in ("images", "all"):
        assert call("score", "model", folder, "--output", f"{folder}.json") == 0
        assert call("calibrate", "model", folder, "--output", f"by-{folder}") == 0
    assert "left out 20 of 80 images, on which the model was trained" in caplog.messages
    alone, among = (json.loads((here / f"{folder}.json").read_text(encoding="utf-8")) for folder in ("images", "all"))
    assert among == {**alone, "images": "all", "left_out": 20}
    by_images, by_all = ((here / f"by-{folder}/config.json").read_bytes() for folder in ("images", "all"))
    assert by_all == by_images
    for command in (("score", "model", "seen"), ("calibrate", "model", "seen", "--output", "by-seen")):
        assert call(*command) == 1
        assert "received 60 of its training images" in read_error_line(capsys)


def test_score_prints_metrics_with_intervals(here, capsys):
    shutil.copytree(here / "images/a,b", here / "some/a,b")
    assert call("score", "model", "some") == 0
    rows = dict(line.split("\t")[:2] for line in capsys.readouterr().out.splitlines() if line)
    low, high = wilson_interval(float(rows["NF-Acc"].split()[0]), 20)
    assert rows["NF-Acc"].endswith(f"({low:.1f} to {high:.1f})")
    assert rows["a,b"] == "20"


def test_a_folder_of_no_class_is_named(here, capsys):
    (here / "other/dog").mkdir(parents=True)
    assert call("score", "model", "other") == 1
    assert "other/dog: " in read_error_line(capsys)


# ---- sample -------------------------------------------------------------------------------------------------


def test_sample_draws_a_picture_and_files(here):
    options = ("--classes", "sea/gull", "1", "--per-class", 2, "--output", "grid.png", "--folder", "drawn")
    assert call("sample", "model", *options) == 0
    with Image.open(here / "grid.png") as picture:
        assert picture.format == "PNG"
    assert list_files(here / "drawn") == {"1/00002.png", "1/00003.png", "sea-gull/00000.png", "sea-gull/00001.png"}
    with Image.open(here / "drawn/1/00002.png") as image:
        assert (image.size, image.mode) == ((8, 8), "L")


def test_drawn_images_depend_on_the_seed_and_on_their_class_alone(here):
    for folder, options in {"a": ("--classes", "1"), "b": (), "c": ("--seed", 1)}.items():
        assert call("sample", "model", "--per-class", 3, *options, "--folder", folder) == 0
    first, same, other = (
        [np.asarray(Image.open(file)) for file in sorted((here / name / "1").iterdir())] for name in "abc"
    )
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


def test_drawn_images_are_of_their_class(here):
    assert call("sample", "model", "--temperature", 0, "--per-class", 1, "--folder", "drawn") == 0
    assert call("score", "model", "drawn", "--output", "score.json") == 0
    assert json.loads((here / "score.json").read_text())["nf_acc"] == 100


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--output", "x.png", "--classes", "gul"), "'gul'"),
        (("--output", "x.png", "--classes", "1", "1"), "classes: "),
        ((), "--output"),
    ],
)
def test_wrong_options_of_sample_are_one_line(here, capsys, options, message):
    assert call("sample", "model", *options) == 1
    assert message in read_error_line(capsys)


# ---- augment-folder -----------------------------------------------------------------------------------------


def test_variants_lie_beside_each_other_under_the_names_of_their_images(here):
    assert call("augment-folder", "model", "images", "--output", "variants", "--nfa.variants", 2) == 0
    expected = {f"{file.parent.name}/{file.stem}_{index}.png" for file in model_and_images(here)[1] for index in (1, 2)}
    assert list_files(here / "variants") == expected


def test_variants_of_a_class_do_not_depend_on_the_others(here):
    shutil.copytree(here / "images/1", here / "some/1")
    for folder in ("images", "some"):
        assert call("augment-folder", "model", folder, "--output", f"{folder}-variants") == 0
    for name in list_files(here / "some-variants"):
        assert (here / "some-variants" / name).read_bytes() == (here / "images-variants" / name).read_bytes()


def test_a_class_of_one_image_is_named(here, capsys):
    (here / "few/1").mkdir(parents=True)
    shutil.copy(next((here / "images/1").iterdir()), here / "few/1")
    assert call("augment-folder", "model", "few", "--output", "variants") == 1
    assert "class '1': " in read_error_line(capsys)
    assert not (here / "variants").exists()


# ---- all ----------------------------------------------------------------------------------------------------

EACH = [
    ("classify", "model", "images", "--output", "out"),
    ("score", "model", "images", "--output", "out"),
    ("calibrate", "model", "images", "--output", "out"),
    ("sample", "model", "--folder", "out"),
    ("augment-folder", "model", "images", "--output", "out"),
]


@pytest.mark.parametrize("command", EACH, ids=lambda command: command[0])
def test_nothing_is_replaced(here, capsys, command):
    assert call(*command) == 0
    before = {path: path.stat().st_mtime_ns for path in [here / "out", *(here / "out").rglob("*")]}
    capsys.readouterr()
    assert call(*command) == 1
    assert read_error_line(capsys).startswith("nfpi: error: out: ")
    assert before == {path: path.stat().st_mtime_ns for path in [here / "out", *(here / "out").rglob("*")]}


def test_a_model_of_other_channels_than_those_of_files_is_one_line(here, capsys):
    flow = build_flow({"kind": "matrix_exponential", "shape": [2, 8, 8], "settings": TINY})
    prior = GaussianPrior(torch.zeros(3, 2 * 64), torch.ones(3, 2 * 64))
    data = {"name": None, "classes": CLASSES, "dtype": "uint8", "extra": {}}
    config = {"seed": 0, "training": {"grey_noise": 0.0, "latent_noise": 0.0}, "data": data}
    ClassConditionalFlow(flow, prior, config).save_pretrained("other")
    assert call("classify", "other", "images") == 1
    assert read_error_line(capsys).startswith("nfpi: error: other: ")


def test_a_missing_or_damaged_model_is_one_line(here, capsys):
    assert call("classify", "./nowhere", "images") == 1
    assert "nowhere" in read_error_line(capsys)
    shutil.copytree(here / "model", here / "cut", symlinks=False)
    os.truncate(here / "cut/model.safetensors", 100)
    assert call("classify", "./cut", "images") == 1
    assert "cut/model.safetensors" in read_error_line(capsys)
