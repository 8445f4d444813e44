"""The examples: priors, a backbone, a metric and a classifier, each run to a table on digits; and unknown images."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from workflow.conftest import clone_project

from nfpi import ClassConditionalFlow
from nfpi.data import read_image_folder
from nfpi.priors.files import load_prior

ROOT = Path(__file__).parents[2]

SMALLER = {
    "extends": "examples/extended.yaml",
    "training": {"epochs": 2, "warmup_steps": 5},
    "flows": {"mef": {"num_flows": [1, 1], "num_blocks": [1, 1], "hidden_channels": [16, 16]}},
    "generation": {"per_class": 12},
    "classifiers": {"cnn": {"epochs": 2}},
    "tables": {
        "table4": {
            "experiments": [
                {"label": "simplex", "dataset": "digits", "prior": "simplex", "classifier": None},
                {"label": "margin", "dataset": "digits", "prior": "margin", "lambdas": [100], "classifier": None},
            ]
        },
        "table8": {
            "metrics": ["parameters", "nf_acc", "spherical", "cnn_acc", "cnn_spherical"],
            "experiments": [{"dataset": "digits", "flow": "nice", "lambdas": [1e4], "classifier": "cnn"}],
        },
    },
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables 4 and 8 of the examples' preset, made by trainings of two epochs."""
    project = clone_project(tmp_path_factory.mktemp("examples") / "clone")
    shutil.copytree(ROOT / "examples", project.folder / "examples")
    project.write("smaller.yaml", SMALLER)
    project.use_real_stages()
    project.run_snakemake("table4", "table8", "--config", "preset=smaller.yaml")
    return project.folder / "results/smaller"


def table(results: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(results / "tables" / f"{name}.csv")


def test_a_metric_is_a_column_for_flows_and_for_classifiers(results: Path) -> None:
    rows = table(results, "table8")
    for column in ("spherical", "cnn_spherical"):
        assert rows[column].between(0, 1).all()
    assert "Spherical score" in (results / "tables/table8.md").read_text(encoding="utf-8")


def test_a_prior_without_a_weight_is_a_row(results: Path) -> None:
    rows = table(results, "table4").set_index("row")
    assert rows.loc["simplex", "status"] == "ok"
    assert rows.loc["simplex", "nf_acc"] > 0
    assert (results / "digits/mef/simplex/lambda=0/seed=0/model/config.json").is_file()


def test_a_prior_that_is_learned_along_with_the_flow_is_a_row(results: Path) -> None:
    rows = table(results, "table4").set_index("row")
    assert rows.loc["margin", "status"] == "ok"
    run = results / "digits/mef/margin/lambda=100/seed=0"
    learned = ClassConditionalFlow.from_pretrained(run / "model").prior
    initial, _ = load_prior(results / "digits/mef/initial/data/seed=0/prior.safetensors")
    moved = (learned.mean - initial.mean).abs().max()
    assert 0 < moved < 1
    assert learned.variance.equal(initial.variance)


def test_a_backbone_and_a_classifier_are_rows(results: Path) -> None:
    rows = table(results, "table8")
    assert (rows["status"] == "ok").all()
    # 6 couplings of 32 → 256 → 256 → 32, and 64 scales
    expected = (6 * (32 * 256 + 256 + 256 * 256 + 256 + 256 * 32 + 32) + 64) / 1e6
    assert rows["parameters"].tolist() == pytest.approx([expected])
    assert rows["cnn_acc"].between(0, 100).all()


def test_pictures_are_drawn_that_nfpi_new_takes(tmp_path):
    folder = tmp_path / "pictures"
    command = [sys.executable, ROOT / "examples/draw_pictures.py", folder, "--per-class", "4"]
    subprocess.run(command, check=True, timeout=60)
    images, _, classes = read_image_folder(folder)
    assert (images.shape, classes) == ((12, 32, 32, 3), ["disc", "square", "triangle"])
    assert (images.std(axis=(1, 2, 3)) > 10).all()


def test_unknown_images_are_measured_and_drawn(tmp_path):
    """This example makes `unknown_images.png` and `walk.png` in docs/images; here with small models of few images."""
    generator = np.random.default_rng(0)
    images, labels = generator.integers(0, 256, (40, 8, 8, 1), np.uint8), np.arange(40) % 10
    for name in ("digits", "Fashion-MNIST"):
        flow = {"kind": "matrix_exponential", "num_flows": [1], "num_blocks": [1], "hidden_channels": [4]}
        model = ClassConditionalFlow.fit(images, labels, name=name, flow=flow, epochs=1, weight=0, progress=False)
        model.save_pretrained(tmp_path / "models" / name)
    for split in ("train", "t10k"):
        for kind, values in (("images-idx3", (200, 28, 28)), ("labels-idx1", (200,))):
            array = generator.integers(0, 256, values, np.uint8) if len(values) == 3 else np.arange(200) % 10
            header = bytes([0, 0, 8, len(values)]) + b"".join(length.to_bytes(4, "big") for length in values)
            (tmp_path / f"{split}-{kind}-ubyte").write_bytes(header + array.astype(np.uint8).tobytes())
    command = [sys.executable, ROOT / "examples/unknown_images.py", "--fashion", tmp_path]
    command += ["--models", tmp_path / "models", "--output", tmp_path / "out"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr[-4000:]
    table = pd.read_csv(tmp_path / "out/unknown_images.csv")
    assert table["model"].value_counts().to_dict() == {"digits": 7, "Fashion-MNIST": 7}
    for score in ("bits_per_dim", "typicality", "probability"):
        assert table[f"auroc_{score}"].between(0, 1).all()
    for name in ("unknown_images.png", "walk.png"):
        with Image.open(tmp_path / "out" / name) as picture:
            assert picture.width > 1000


def test_vectors_of_digits_are_classified_with_and_without_a_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "examples")
    from vectors import compare, measure_split

    found = measure_split(seed=0, epochs=2)
    assert (found["nf_acc"] > 80).all()
    assert found["bits_per_dim"].notna().sum() == 8
    accuracies = pd.DataFrame([[90.0, 92.0], [80.0, 84.0]], index=["one", "other"])
    assert compare(accuracies, "one", "other").startswith("one − other: 9.00 ± ")
