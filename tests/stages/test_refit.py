"""Training on all images: the validation split is empty, and no stage needs it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nfpi.config.resolution import resolve
from nfpi.data import read_image_set
from nfpi.figures.curves import write_curves
from nfpi.results.recorded.calls import StoredSettings, write_planned, write_settings
from nfpi.results.recorded.csv_files import read_csv

from .conftest import SmallRun, call, check_call, read_error_line, read_json

ROOT = Path(__file__).parents[2]
DEMO = resolve(ROOT / "config.yaml", ROOT / "presets", {"preset": "demo"}).config

REFIT = {"train_per_class": 20, "test_per_class": 8, "flip": False, "refit": True}


@pytest.fixture(scope="module")
def refit(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """A complete run with one temperature, whose data set holds nothing out."""
    run = SmallRun(tmp_path_factory.mktemp("refit"), images=REFIT, temperatures=(1,))
    run.begin()
    run.train()
    run.classify()
    return run


def test_nothing_is_measured_on_an_empty_validation_split(refit):
    assert len(read_image_set(refit.splits / "validation")) == 0
    metrics = read_json(refit.folder / "metrics.json")["metrics"]
    tested = read_json(refit.root / refit.tested.folder / "metrics.json")["metrics"]
    assert {"nf_acc", "bits_per_dim"} <= metrics.keys()
    assert {"cnn_acc", "temperature"} <= tested.keys()
    assert not [name for name in (*metrics, *tested) if name.startswith("validation")]


def test_the_log_has_no_validation_and_its_curves_are_drawn(refit):
    log = refit.folder / "log.csv"
    columns = ("train_bits_per_dim", "validation_bits_per_dim", "validation_nf_acc")
    assert read_csv(log, dict.fromkeys(columns, "float64")).count()[list(columns)].tolist() == [3, 0, 0]
    assert write_curves(refit.folder)
    write_planned(refit.root, [refit.identity])
    write_settings(refit.root, StoredSettings.of("demo", DEMO))
    check_call("page", refit.root)
    assert (refit.root / "index.html").is_file()


def test_several_temperatures_cannot_be_compared(refit, capsys):
    two = replace(refit, temperatures=(0.8, 1))
    for stage in ("generate", "train-classifier"):
        check_call(*two.make_command(stage, temperature=0.8))
    capsys.readouterr()
    assert call(*two.make_command("test-classifier")) == 1
    assert "no validation images" in read_error_line(capsys)
