"""What one run measured, as metrics.json."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import pytest
import torch

from nfpi.config.extensions import load_extensions
from nfpi.results.recorded.records import MetricsError, read_record, write_metrics
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


@pytest.mark.parametrize(
    ("metrics", "changes", "named"),
    [
        ({"nf_acc": 1.0}, {"seconds": math.nan}, "seconds"),
        ({"nf_acc": 1.0}, {"settings": {"alpha": math.nan}}, "settings"),
        ({"nf_acc": 1.0}, {"seed": 0}, "seed"),  # not that of the run
        ({}, {}, "metric"),
    ],
)
def test_what_is_no_record_of_the_run_is_refused(tmp_path, metrics, changes, named):
    with pytest.raises(MetricsError, match=named):
        write(tmp_path / "a", metrics, **changes)


def test_a_record_says_whose_it_is_and_what_it_came_from(tmp_path):
    record = write(tmp_path / "metrics.json", {"nf_acc": 99.2, "bits_per_dim": 2.5})
    assert Run.from_json(record["run"]) == RUN
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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "JSON"),
        ("[]", "JSON"),
        ("[" * 100_000, "JSON"),
        ('{"metrics": {}}', "metrics"),
        ('{"metrics": {"nf_acc": NaN}}', "JSON"),
        ('{"metrics": {"nf_acc": 1e999}}', "JSON"),
        ('{"metrics": {"nf_acc": "99"}}', "metrics.nf_acc"),
        ('{"metrics": {"nf_acc": true}}', "metrics.nf_acc"),
        ('{"metrics": {"nf_acc": 1.0}, "seed": 1e0}', "seed"),
        ('{"diverged": {"quantity": "mean", "iteration": "3"}}', "diverged.iteration"),
    ],
)
def test_a_broken_file_is_named(tmp_path, text, message):
    path = tmp_path / "metrics.json"
    write_atomically(path, text)
    with pytest.raises(MetricsError, match=message) as error:
        read_record(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
