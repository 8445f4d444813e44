"""The metrics of many runs as one long table."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from nfpi.results.recorded.records import MetricsError, write_metrics
from nfpi.results.recorded.runs import COLLECTED_COLUMNS, collect
from nfpi.runs import Run
from nfpi.runtime.divergence import Diverged, mark_diverged

FITTED = Run(dataset="digits", flow="mef", prior="fpi", weight=3e4, seed=1)
DIVERGED = replace(FITTED, weight=1e6, seed=0)
RUNS = {
    FITTED: {"nf_acc": 99.2, "bits_per_dim": 2.5},
    replace(FITTED, classifier="resnet18"): {"cnn_acc": 100 / 3},
    Run(dataset="digits", flow="glow", prior="baseline", weight=0.0, seed=0): {"nf_acc": 94.4},
    Run(dataset="digits", seed=3, classifier="swin", augmentation="standard"): {"top1": 1.0},
    replace(FITTED, classifier="swin", augmentation="standard+nfa"): {"top1": 2.0},
}


def write(root: Path, run: Run, metrics: dict[str, float], identity: Run | None) -> Path:
    path = root / run.folder / "metrics.json"
    seed = run.seed if identity is None else identity.seed
    write_metrics(path, metrics, run=identity, n=360, seed=seed, settings={}, device="cpu", seconds=1.5)
    return path


def test_a_value_has_the_number_of_images_that_it_was_measured_on(tmp_path):
    metrics = {"nf_acc": 90.0, "validation_nf_acc": 80.0}
    common = {"run": FITTED, "n": 360, "seed": FITTED.seed, "settings": {}, "device": "cpu", "seconds": 1.5}
    write_metrics(tmp_path / FITTED.folder / "metrics.json", metrics, validation_n=40, **common)
    assert collect([FITTED], tmp_path)["n"].tolist() == [360, 40]


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    for run, metrics in RUNS.items():
        write(tmp_path, run, metrics, run)
    mark_diverged([tmp_path / DIVERGED.folder / "metrics.json"], Diverged(3, 2, "variance", 1e6))
    return [*RUNS, DIVERGED]


def test_a_value_is_a_row_with_the_identity_of_its_run(runs, tmp_path):
    frame = collect(runs, tmp_path)
    assert list(frame.columns) == list(COLLECTED_COLUMNS)
    assert len(frame) == 7
    for run, metrics in RUNS.items():
        rows = frame[frame["run"] == run.folder]
        assert dict(zip(rows["metric"], rows["value"], strict=True)) == metrics
        assert set(rows["status"]) == {"ok"}
        assert set(rows["n"]) == {360}
        for row in rows.to_dict("records"):
            for name, value in run.row().items():
                assert row[name] == value or (math.isnan(row[name]) and math.isnan(value))


def test_a_divergence_is_a_row_of_its_own(runs, tmp_path):
    frame = collect(runs, tmp_path)
    row = frame[frame["status"] != "ok"].iloc[0]
    assert row["status"] == "diverged: variance of class 2 at iteration 3"
    assert (row["metric"], row["lambda"], row["run"]) == ("", 1e6, DIVERGED.folder)
    assert math.isnan(row["value"])


def test_the_order_of_the_runs_does_not_matter(runs, tmp_path):
    expected = collect(runs, tmp_path)
    for order in itertools.islice(itertools.permutations(runs), 0, None, 50):
        pd.testing.assert_frame_equal(collect([*order, order[0]], tmp_path), expected)


def test_metrics_of_another_run_are_refused(tmp_path):
    path = write(tmp_path, FITTED, {"nf_acc": 1.0}, replace(FITTED, weight=1.0))
    with pytest.raises(MetricsError, match=f"{path}: .*{FITTED.folder}"):
        collect([FITTED], tmp_path)


@pytest.mark.parametrize("identity", [None, {"dataset": "digits"}, "digits"])
def test_what_is_no_identity_is_refused(tmp_path, identity):
    path = write(tmp_path, FITTED, {"nf_acc": 1.0}, FITTED)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"run": identity}))
    with pytest.raises(MetricsError) as error:
        collect([FITTED], tmp_path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
