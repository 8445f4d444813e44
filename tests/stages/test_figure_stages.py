"""The stage that draws figures, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from nfpi.cli import main
from nfpi.data import write_image_set
from nfpi.priors import ClassStatistics
from nfpi.priors.files import save_prior, save_statistics
from nfpi.priors.gaussian import GaussianPrior
from nfpi.runtime.divergence import Diverged, mark_diverged

FIGURE1 = {"dataset": "toy", "images": 30, "perplexity": 5, "samples_per_class": 10, "lambdas": [1, 10]}


def draw(name: str, figure: dict, files: dict[str, list[Path]], output: Path, **reads: object) -> int:
    as_text = {key: [str(file) for file in found] for key, found in files.items()}
    options = {"--name": name, "--output": str(output)}
    options |= {"--figure": json.dumps(figure), "--files": json.dumps(as_text), "--reads": json.dumps(reads)}
    return main(["figure", *(text for option in options.items() for text in option)])


@pytest.fixture(scope="module")
def train(tmp_path_factory, make_images) -> list[Path]:
    images = make_images((1, 4, 4), per_class=12)
    folder = tmp_path_factory.mktemp("data") / "train"
    write_image_set(folder, images.images, images.labels, images.classes, name="toy", flip=False)
    return sorted(folder.iterdir())


def test_a_figure_is_made_with_its_pictures_and_its_table(train, tmp_path):
    assert draw("figure1", FIGURE1, {"train": train}, tmp_path / "figures") == 0
    names = {"figure1.csv", "figure1.png", "figure1.pdf", "figure1_full.png", "figure1_full.pdf"}
    assert {file.name for file in (tmp_path / "figures").iterdir()} == names


def test_residuals_of_fits_that_ended_and_of_one_that_diverged(tmp_path):
    labels = torch.arange(3).repeat_interleave(20)
    latents = torch.randn(60, 4, generator=torch.Generator().manual_seed(0)) + labels[:, None]
    statistics = ClassStatistics.from_latents(latents, labels)
    save_statistics(tmp_path / "initial/statistics.safetensors", statistics, {"seed": 0})
    initial = GaussianPrior(statistics.mean, statistics.variance)
    save_prior(tmp_path / "initial/prior.safetensors", initial, {"seed": 0})
    for weight, update in (("1", "released"), ("1e8", "exact")):
        fit = ("--initial", str(tmp_path / "initial"), "--prior", json.dumps({"update": update}), "--weight", weight)
        assert main(["fit-prior", *fit, "--output", str(tmp_path / weight)]) == 0
    files = {"iterations": [tmp_path / weight / "fixed_point.csv" for weight in ("1", "1e8")]}
    figure = {"dataset": "toy", "lambdas": [1, 1e8]}
    assert draw("residuals", figure, files, tmp_path / "figures", prior={"tolerance": 0.1}) == 0
    assert {file.name for file in (tmp_path / "figures").iterdir()} == {"residuals.png", "residuals.pdf"}


def test_a_flow_whose_fit_diverged_is_drawn_as_a_notice(tmp_path):
    model = [tmp_path / "model" / name for name in ("config.json", "model.safetensors")]
    mark_diverged(model, Diverged(4, 1, "variance", 1e6))
    figure = {"dataset": "toy", "lambda": 10, "temperatures": [0.5, 1.0]}
    assert draw("samples", figure, {"model": model}, tmp_path / "figures") == 0
    assert {file.name for file in (tmp_path / "figures").iterdir()} == {"samples.png", "samples.pdf"}


def test_faults_are_one_line_and_leave_nothing(train, tmp_path, capsys):
    output = tmp_path / "figures"
    assert draw("figure1", FIGURE1 | {"perplexity": 30}, {"train": train}, output) == 1
    assert draw("figure1", FIGURE1, {}, output) == 1
    assert draw("figure1", FIGURE1 | {"colour": "red"}, {"train": train}, output) == 1
    assert draw("figure7", FIGURE1, {"train": train}, output) != 0
    lines = capsys.readouterr().err.strip().splitlines()
    assert "perplexity: expected less than the 30 images, received 30" in lines[0]
    assert "expected the files called train in one folder, received 0 folders" in lines[1]
    assert "unknown key 'colour'" in lines[2]
    assert "unknown figure 'figure7'" in lines[3]
    assert not output.exists()
