"""What one run measured, as metrics.json."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from nfpi.config.extensions import load_extensions
from nfpi.results.recorded.records import MetricsError, config_hash, read_record, write_metrics
from nfpi.runs import Run
from nfpi.runtime.files import write_atomically

RUN = Run(dataset="digits", flow="mef", prior="fpi", weight=3e4, seed=1)
COMMON = {"run": RUN, "n": 360, "seed": 1, "settings": {"flow": {"num_flows": [4, 4]}}, "device": "cpu", "seconds": 1.5}


def write(path: Path, metrics: dict[str, float], **changes) -> dict:
    write_metrics(path, metrics, **(COMMON | changes))
    return json.loads(path.read_text())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None, "high"])
def test_what_is_no_finite_number_is_refused_and_nothing_written(tmp_path, value):
    with pytest.raises(MetricsError, match="nf_acc") as error:
        write(tmp_path / "metrics.json", {"nf_acc": value})
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_seconds_and_settings_are_finite_too(tmp_path):
    with pytest.raises(MetricsError, match="seconds"):
        write(tmp_path / "a", {"nf_acc": 1.0}, seconds=math.nan)
    with pytest.raises(MetricsError, match="settings"):
        write(tmp_path / "a", {"nf_acc": 1.0}, settings={"alpha": math.nan})


def test_a_record_says_whose_it_is_and_what_it_came_from(tmp_path):
    record = write(tmp_path / "metrics.json", {"nf_acc": 99.2, "bits_per_dim": 2.5})
    assert set(record) == {
        *("run", "metrics", "n", "seed", "settings", "versions", "git_commit", "device", "seconds", "config_hash"),
    }
    assert Run.from_json(record["run"]) == RUN
    assert record["run"]["lambda"] == 3e4
    assert record["metrics"] == {"nf_acc": 99.2, "bits_per_dim": 2.5}
    assert {"python", "torch", "nfpi"} <= set(record["versions"])
    assert record["settings"] == COMMON["settings"]
    assert read_record(tmp_path / "metrics.json") == record


def test_a_record_has_the_digests_of_the_users_files(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("# a prior of one's own")
    load_extensions([file])
    try:
        versions = write(tmp_path / "metrics.json", {"nf_acc": 99.2})["versions"]
    finally:
        load_extensions([])
    assert versions["mine.py"] == hashlib.sha256(file.read_bytes()).hexdigest()[:12]


def test_the_accuracy_of_each_class_may_be_unknown(tmp_path):
    accuracies = torch.tensor([50.0, math.nan, 100.0], dtype=torch.float64)
    record = write(tmp_path / "metrics.json", {"nf_acc": 75.0}, per_class_accuracy=accuracies)
    assert record["per_class_accuracy"] == [50.0, None, 100.0]


def test_what_is_on_the_way_to_a_runs_metrics_has_no_run(tmp_path):
    assert "run" not in write(tmp_path / "metrics.json", {"validation_cnn_acc": 50.0}, run=None)


def test_the_seed_is_that_of_the_run(tmp_path):
    with pytest.raises(MetricsError, match=r"seed.*0"):
        write(tmp_path / "a", {"nf_acc": 1.0}, seed=0)


def test_numpy_numbers_are_numbers(tmp_path):
    record = write(tmp_path / "a", {"nf_acc": np.float32(50)}, n=np.int64(3))
    assert record["metrics"] == {"nf_acc": 50.0}
    assert record["n"] == 3


def test_there_is_at_least_one_metric(tmp_path):
    with pytest.raises(MetricsError, match="metric"):
        write(tmp_path / "a", {})


def test_equal_settings_have_equal_hashes():
    assert config_hash({"a": 1, "b": {"c": [1, 2], "d": None}}) == config_hash({"b": {"d": None, "c": (1, 2)}, "a": 1})
    assert config_hash({"a": 1}) != config_hash({"a": 2})
    assert config_hash({"folder": Path("x")}) == config_hash({"folder": "x"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected JSON"),
        ("[]", "JSON object"),
        ("{}", "metrics: Field required"),
        ('{"metrics": {}}', "expected the metrics of a run, received none"),
        ('{"metrics": {"nf_acc": NaN}}', "expected JSON"),
        ("null", "JSON object"),
        ("[" * 100_000, "expected JSON"),
        ('{"metrics": {"nf_acc": 1e999}}', "expected JSON"),
        ('{"metrics": {"nf_acc": "99"}}', "metrics.nf_acc: Input should be a valid number"),
        ('{"metrics": {"nf_acc": true}}', "metrics.nf_acc: Input should be a valid number"),
        ('{"metrics": {"nf_acc": 1.0}, "seed": 1e0}', "seed: Input should be a valid integer"),
        ('{"diverged": null}', "diverged: Input should be"),
        ('{"diverged": {"quantity": "mean", "iteration": "3"}}', "diverged.iteration: Input should be"),
        ('{"metrics": {"nf_acc": 1.0}, "n": "many"}', "n: Input should be a valid integer"),
    ],
)
def test_a_broken_file_is_named(tmp_path, text, message):
    path = tmp_path / "metrics.json"
    write_atomically(path, text)
    with pytest.raises(MetricsError, match=message) as error:
        read_record(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
