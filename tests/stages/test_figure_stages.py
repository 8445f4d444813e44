"""The stages that compute and draw figures, on a small flow."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from nfpi.cli import main
from nfpi.data import domain_of, read_image_set, write_image_set
from nfpi.flows import MatrixExponentialFlow
from nfpi.runtime.divergence import mark_tensors
from nfpi.priors import ClassStatistics, FixedPointDiverged, GaussianPrior
from nfpi.runtime.randomness import generator_for
from nfpi.runtime.tensors import save_flow, save_prior, save_statistics

SAMPLES = {"dataset": "toy", "weight": 10, "temperatures": [0.5, 1.0]}
AUGMENTATIONS = {"dataset": "toy", "weight": 10, "classes": ["class0", "2"]}


def call(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def root(tmp_path_factory, make_images) -> Path:
    """A train split, a flow, its prior and the statistics of its latents."""
    root = tmp_path_factory.mktemp("root")
    images = make_images((1, 4, 4), per_class=12)
    write_image_set(root / "train", images.images, images.labels, images.classes, name="toy", flip=False)
    train = read_image_set(root / "train")
    noise = {"grey_noise": 0.05, "latent_noise": 0.05}
    x = domain_of(train.meta, **noise).to_flow(
        torch.tensor(np.array(train.images)).permute(0, 3, 1, 2), generator_for("cpu", 0)
    )
    flow = MatrixExponentialFlow(train.shape, [1], [1], [8])
    flow.initialize(x)
    data = {key: train.meta[key] for key in ("name", "classes", "dtype", "extra")}
    save_flow(root / "flow.safetensors", flow, {"seed": 3, "training": noise, "data": data})
    with torch.no_grad():
        statistics = ClassStatistics.from_latents(flow(x)[0], torch.tensor(train.labels))
    save_statistics(root / "statistics.safetensors", statistics, {"seed": 3})
    save_prior(root / "prior.safetensors", GaussianPrior(statistics.mean, statistics.variance), {"seed": 3})
    mark_tensors(root / "diverged.safetensors", FixedPointDiverged(4, 1, "variance", 1e6))
    return root


def embed(root: Path, output: Path, **figure) -> int:
    settings = {"dataset": "toy", "images": 30, "perplexity": 5, "samples_per_class": 10, "lambdas": [1, 10], **figure}
    return call("embed", "--data", root, "--figure", json.dumps(settings), "--output", output)


def draw_samples(root: Path, output: Path, flow: str = "flow.safetensors") -> int:
    trained = ("--flow", root / flow, "--prior", root / "prior.safetensors")
    return call("draw-samples", *trained, "--figure", json.dumps(SAMPLES), "--output", output)


def draw_augmentations(root: Path, output: Path, flow: str = "flow.safetensors", **figure) -> int:
    return call(
        *("draw-augmentations", "--data", root, "--flow", root / flow, "--nfa", json.dumps({"axes": 3})),
        *("--figure", json.dumps(AUGMENTATIONS | figure), "--output", output),
    )


def pictures(stem: Path) -> list[bytes]:
    """The figure in both forms, and nothing else is there."""
    assert {file.name for file in stem.parent.iterdir()} == {f"{stem.name}.png", f"{stem.name}.pdf"}
    return [stem.with_suffix(suffix).read_bytes() for suffix in (".png", ".pdf")]


def test_figure_1_from_images_to_both_drawings(root, tmp_path):
    assert embed(root, tmp_path / "embedding.csv", lambdas_full=[0.1, 1e8]) == 0
    drawn = []
    for name in ("figure1", "figure1_full"):
        assert call("figure", tmp_path / "embedding.csv", "--name", name, "--output", tmp_path / name / name) == 0
        drawn += pictures(tmp_path / name / name)
    assert len(set(drawn)) == 4


def test_a_map_from_statistics_to_its_drawing(root, tmp_path):
    start = ("--statistics", root / "statistics.safetensors", "--initial", root / "prior.safetensors")
    figure = json.dumps({"dataset": "toy", "lambdas": [1, 1e8]})
    assert call("map-convergence", *start, "--figure", figure, "--output", tmp_path / "map.csv") == 0
    assert len(pd.read_csv(tmp_path / "map.csv")) == 24
    output = tmp_path / "figures/map"
    assert call("figure", tmp_path / "map.csv", "--name", "convergence_map", "--output", output) == 0
    pictures(output)


def fit(root: Path, folder: Path, weight: float, update: str = "released") -> Path:
    start = ("--statistics", root / "statistics.safetensors", "--initial", root / "prior.safetensors")
    prior = ("--prior.update", update, "--weight", weight)
    outputs = ("--output", folder / "prior.safetensors", "--iterations", folder / "fixed_point.csv")
    assert call("fit-prior", *start, *prior, *outputs) == 0
    return folder / "fixed_point.csv"


def test_residuals_of_fits_that_ended_and_of_one_that_diverged(root, tmp_path):
    files = [fit(root, tmp_path / "1", 1), fit(root, tmp_path / "1e8", 1e8, "exact")]
    figure = ("--figure", json.dumps({"dataset": "toy", "lambdas": [1, 1e8]}))
    settings = ("--prior", json.dumps({"tolerance": 0.1}), "--name", "residuals")
    assert call("figure", *files, *settings, *figure, "--output", tmp_path / "figures/residuals") == 0
    pictures(tmp_path / "figures/residuals")


@pytest.mark.parametrize("draw", [draw_samples, draw_augmentations])
def test_images_are_drawn_and_always_the_same(root, tmp_path, draw):
    assert draw(root, tmp_path / "once/figure") == 0
    assert draw(root, tmp_path / "again/figure") == 0
    assert pictures(tmp_path / "once/figure") == pictures(tmp_path / "again/figure")


@pytest.mark.parametrize("draw", [draw_samples, draw_augmentations])
def test_a_flow_whose_fit_diverged_is_drawn_as_a_notice(root, tmp_path, draw):
    assert draw(root, tmp_path / "diverged/figure", flow="diverged.safetensors") == 0
    assert draw(root, tmp_path / "fine/figure") == 0
    assert pictures(tmp_path / "diverged/figure") != pictures(tmp_path / "fine/figure")


def test_faults_are_one_line_and_leave_nothing(root, tmp_path, capsys):
    assert embed(root, tmp_path / "embedding.csv", perplexity=30) == 1
    assert draw_augmentations(root, tmp_path / "figure", classes=["class7"]) == 1
    (tmp_path / "empty.csv").write_text("x,y\n")
    assert call("figure", tmp_path / "empty.csv", "--name", "figure1", "--output", tmp_path / "figure") == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert "perplexity: expected less than the 30 images, received 30" in lines[0]
    assert "received 'class7'" in lines[1]
    assert "expected column dataset" in lines[2]
    assert [file.name for file in tmp_path.iterdir()] == ["empty.csv"]


def test_a_figure_takes_as_many_files_as_it_shows(capsys):
    figure = ("--figure", json.dumps({"dataset": "toy", "lambdas": [1, 10]}))
    assert call("figure", "a.csv", "--name", "residuals", *figure, "--output", "f") == 1
    assert "expected 2 for residuals, received 1" in capsys.readouterr().err
    assert call("figure", "a.csv", "b.csv", "--name", "figure1", "--output", "f") == 1
    assert "expected 1 for figure1, received 2" in capsys.readouterr().err
    assert call("figure", "a.csv", "--name", "figure1", *figure, "--output", "f") == 1
    assert "for residuals only" in capsys.readouterr().err


@pytest.mark.parametrize("size", [(2, 16), (3, 9)], ids=["fewer classes", "other dimensions"])
def test_a_prior_of_other_data_is_refused(root, tmp_path, size, capsys):
    prior = GaussianPrior(torch.zeros(size, dtype=torch.float64), torch.ones(size, dtype=torch.float64))
    save_prior(tmp_path / "prior.safetensors", prior, {})
    trained = ("--flow", root / "flow.safetensors", "--prior", tmp_path / "prior.safetensors")
    output = tmp_path / "new/figure"
    assert call("draw-samples", *trained, "--figure", json.dumps(SAMPLES), "--output", output) == 1
    assert f"expected 3 classes in 16 dimensions, received {size[0]} in {size[1]}" in capsys.readouterr().err
    assert not output.parent.exists()


@pytest.mark.parametrize("names", [["a", "b", "c"], ["class0", "class1"]], ids=["other names", "fewer"])
def test_images_of_other_classes_are_refused(root, tmp_path, names, capsys):
    images = np.zeros((10, 4, 4, 1), np.uint8)
    write_image_set(tmp_path / "train", images, np.arange(10) % 2, names, name="other", flip=False)
    output = tmp_path / "new/figure"
    arguments = ("--data", tmp_path, "--flow", root / "flow.safetensors", "--output", output)
    assert call("draw-augmentations", *arguments, "--figure", json.dumps(AUGMENTATIONS)) == 1
    assert "expected the classes" in capsys.readouterr().err
    assert not output.parent.exists()
