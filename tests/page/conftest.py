"""The folder of results of a small preset, written without any training."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from nfpi.config.settings import Config
from nfpi.data import write_image_set
from nfpi.results.recorded.calls import StoredSettings, write_settings
from nfpi.results.recorded.csv_files import write_log
from nfpi.results.recorded.predictions import write_predictions
from nfpi.results.recorded.records import write_metrics
from nfpi.results.tables.building import table_columns
from nfpi.results.tables.layout import write_table
from nfpi.runs import Run
from nfpi.runtime.divergence import Diverged, mark_diverged

CLASSES = ["<ant>", "bee", "cow & calf"]
N = 60
TITLE = "Accuracy <b>against</b> λ & more"
BASELINE = Run(dataset="animals", seed=0, flow="mef", prior="baseline", weight=0.0)
FITTED = replace(BASELINE, prior="fpi", weight=1e4)
DIVERGED = replace(FITTED, weight=1e9)
ON_GENERATED_IMAGES = replace(FITTED, classifier="resnet18")
AUGMENTED = replace(FITTED, classifier="swin", augmentation="nfa")
WITHOUT_FLOW = Run(dataset="animals", seed=0, classifier="swin", augmentation="none")
CONFIG = {
    "seeds": [0],
    "datasets": {"animals": {}},
    "flows": {"mef": {}},
    "priors": {"fpi": {}},
    "classifiers": {"resnet18": {}, "swin": {"model": "swin", "train_on": "real"}},
    "tables": {
        "table2": {
            "title": TITLE,
            "experiments": [
                {"dataset": "animals", "lambdas": [0, 1e4, 1e9]},
                {"dataset": "animals", "lambdas": [1e4], "classifier": "swin", "augmentation": "nfa"},
                {"dataset": "animals", "prior": None, "classifier": "swin", "augmentation": "none"},
            ],
        }
    },
    "figures": {
        "samples": {"dataset": "animals", "lambda": 1e4},
        "figure1": {"dataset": "animals", "lambdas": [1e4, 1e9]},
    },
}
VALUES = {
    BASELINE: {"nf_acc": 80.0, "validation_nf_acc": 78.0, "bits_per_dim": 3.21, "brier_of_mine": 0.5},
    FITTED: {"nf_acc": 95.0, "validation_nf_acc": 94.0, "bits_per_dim": 3.45, "hours": 1.5},
    ON_GENERATED_IMAGES: {"cnn_acc": 90.0, "temperature": 0.9, "validation_cnn_acc": 91.0},
    AUGMENTED: {"top1": 85.0, "validation_top1": 86.0},
    WITHOUT_FLOW: {"top1": 75.0, "validation_top1": 74.0},
}


@dataclass(frozen=True)
class Results:
    """results/{preset}."""

    root: Path

    def locate_run(self, run: Run) -> Path:
        """Return the folder of a run."""
        return self.root / run.folder

    def measure(self, run: Run, **values: float) -> None:
        """Write the metrics and predictions of a run."""
        settings = {"training": {"epochs": 2, "batch_size": 64}, "prior": {"lambda": run.weight}}
        write_metrics(
            self.locate_run(run) / "metrics.json",
            values,
            run=run,
            n=N,
            seed=run.seed,
            settings=settings,
            device="a <machine>",
            seconds=1.0,
        )
        generator = torch.Generator().manual_seed(len(run.folder))
        labels = torch.arange(N) % len(CLASSES)
        log_prob = torch.randn(N, len(CLASSES), generator=generator)
        log_prob[torch.arange(N), labels] += 2
        write_predictions(self.locate_run(run) / "predictions.npz", labels, log_prob)

    def log(self, folder: Path, column: str = "train_bits_per_dim") -> None:
        """Write the log of a training."""
        write_log(folder / "log.csv", [{"epoch": epoch, column: 4.0 - epoch, "seconds": 1.0} for epoch in (1, 2)])

    def draw(self, name: str) -> None:
        """Write a picture."""
        folder = self.root / "figures"
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (1020, 400), "white").save(folder / f"{name}.png")

    def tabulate(self, name: str, title: str) -> None:
        """Write a table of two runs and one that diverged."""
        rows = [
            _make_row(0.0, 80.0, False),
            _make_row(1e4, 95.0, True),
            {**_make_row(1e9, math.nan, False), "status": "diverged: mean of class 1 at iteration 2"},
        ]
        columns = table_columns(["nf_acc"])
        write_table(pd.DataFrame(rows, columns=list(columns)).astype(columns), self.root / "tables", name, title)


def _make_row(weight: float, nf_acc: float, best: bool) -> dict[str, object]:
    row = {"experiment": 0, "row": "", "dataset": "animals", "flow": "mef", "prior": "fpi", "lambda": weight}
    row |= {"classifier": "", "augmentation": "", "images": N, "status": "ok", "validation": nf_acc, "best": best}
    row |= {"chosen_by": "validation_nf_acc", "candidates": 2, "split_ratio": 0.0, "nf_acc_test": ""}
    row |= {"nf_acc": nf_acc, "nf_acc_std": math.nan, "nf_acc_low": nf_acc - 8, "nf_acc_high": nf_acc + 4}
    paper = 96.0 if best else math.nan
    return row | {"nf_acc_seeds": 1, "paper_nf_acc": paper, "nf_acc_difference": nf_acc - paper}


def make_results(root: Path) -> Results:
    """Write the results of flows at three λ, one of which diverged, and of classifiers."""
    results = Results(root)
    rng = np.random.default_rng(0)

    def write_images(folder: Path) -> None:
        pixels = rng.integers(0, 256, (N, 8, 8, 3), np.uint8)
        write_image_set(folder, pixels, np.arange(N) % len(CLASSES), CLASSES, name="animals", flip=True)

    write_images(root / "animals/splits/test")
    for run, values in VALUES.items():
        results.measure(run, **values)
    for run in (BASELINE, FITTED):
        results.log(results.locate_run(run))
    results.log(results.locate_run(ON_GENERATED_IMAGES) / "temperature=0.9", "train_loss")
    results.log(results.locate_run(AUGMENTED) / "trained", "train_loss")
    write_images(results.locate_run(FITTED) / "generated/temperature=0.9")
    fault = Diverged(2, 1, "mean", 1e9)
    mark_diverged([results.locate_run(DIVERGED) / name for name in ("metrics.json", "predictions.npz")], fault)
    results.tabulate("table2", TITLE)
    for name in ("samples", "figure1", "figure1_full"):
        results.draw(name)
    benchmark = root / "benchmarks" / FITTED.folder / "train_flow.tsv"
    benchmark.parent.mkdir(parents=True)
    benchmark.write_text("s\th:m:s\tmax_rss\n7200.0\t2:00:00\t2048.0\n")
    write_settings(root, StoredSettings.of("mine", Config.model_validate(CONFIG)))
    return results


@pytest.fixture(scope="session")
def finished_results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """The results; tests only read them."""
    return make_results(tmp_path_factory.mktemp("page") / "results/mine")


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """The same results, to be damaged."""
    return make_results(tmp_path / "results/mine")
