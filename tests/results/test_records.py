import itertools
import json
import math
import stat
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfpi.config import format_weight
from nfpi.runtime.files import write_atomically
from nfpi.results.records import LEAF, MetricsError, collect, config_hash, read_csv, write_csv, write_metrics

COMMON = {"n": 360, "seed": 0, "settings": {"flow": {"num_flows": [4, 4]}}, "device": "cpu", "seconds": 1.5}
DIVERGED = {"iteration": 3, "class_index": 2, "quantity": "variance", "weight": 1e6}


def write_leaf(root: Path, run: str, metrics: dict[str, float] | None = None, **changes) -> Path:
    path = root / run / "metrics.json"
    write_metrics(path, metrics or {}, **(COMMON | changes))
    return path


@pytest.fixture
def leaves(tmp_path: Path) -> list[Path]:
    return [
        write_leaf(tmp_path, "digits/fpi/lambda=30000/seed=1", {"nf_acc": 99.2, "bits_per_dim": 2.5}, seed=1),
        write_leaf(tmp_path, "digits/fpi/lambda=30000/seed=1/resnet18", {"cnn_acc": 100 / 3}, seed=1),
        write_leaf(tmp_path, "digits/baseline/lambda=0/seed=0", {"nf_acc": 94.4}),
        write_leaf(tmp_path, "digits/fpi/lambda=1000000/seed=0", diverged=DIVERGED),
    ]


@given(st.floats(min_value=0, allow_infinity=False), st.sampled_from(["", "/resnet18"]))
def test_every_weight_is_read_back_from_its_path(weight, stage):
    path = f"cifar10/baseline-identity/lambda={format_weight(weight)}/seed=12{stage}/metrics.json"
    match = LEAF.fullmatch(path)
    assert match is not None
    assert float(match["weight"]) == weight
    assert (match["dataset"], match["prior"], match["seed"]) == ("cifar10", "baseline-identity", "12")
    assert (match["stage"] or "") == stage.removeprefix("/")


def test_a_classifier_of_real_images_is_told_by_its_path(tmp_path):
    paths = [
        write_leaf(tmp_path, "digits/real/seed=3/swin/augmentation=standard", {"top1": 1.0}),
        write_leaf(tmp_path, "digits/fpi/lambda=1000/seed=3/swin/augmentation=standard+nfa", {"top1": 2.0}),
    ]
    frame = collect(paths, tmp_path)
    assert frame["prior"].tolist() == ["fpi", "real"]
    assert frame["augmentation"].tolist() == ["standard+nfa", "standard"]
    assert frame["lambda"].isna().tolist() == [False, True]
    assert frame["stage"].tolist() == ["swin", "swin"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None, "high"])
def test_what_is_no_finite_number_is_refused_and_nothing_written(tmp_path, value):
    with pytest.raises(MetricsError, match="nf_acc: expected a finite number") as error:
        write_leaf(tmp_path, "digits/fpi/lambda=1/seed=0", {"nf_acc": value})
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_seconds_and_settings_are_finite_too(tmp_path):
    with pytest.raises(MetricsError, match="seconds"):
        write_leaf(tmp_path, "a", {"nf_acc": 1.0}, seconds=math.nan)
    with pytest.raises(MetricsError, match="settings"):
        write_leaf(tmp_path, "a", {"nf_acc": 1.0}, settings={"alpha": math.nan})


def test_a_leaf_says_what_it_came_from(leaves):
    record = json.loads(leaves[0].read_text())
    assert set(record) == {
        "metrics", "n", "seed", "settings", "versions", "git_commit", "device", "seconds", "config_hash",
    }  # fmt: skip
    assert record["metrics"] == {"nf_acc": 99.2, "bits_per_dim": 2.5}
    assert {"python", "torch", "nfpi"} <= set(record["versions"])
    assert record["settings"] == COMMON["settings"]


def test_numpy_numbers_are_numbers(tmp_path):
    path = write_leaf(tmp_path, "a", {"nf_acc": np.float32(50)}, n=np.int64(3))
    assert json.loads(path.read_text())["metrics"] == {"nf_acc": 50.0}


def test_metrics_and_divergence_exclude_each_other(tmp_path):
    with pytest.raises(MetricsError, match="has no metrics"):
        write_leaf(tmp_path, "a", {"nf_acc": 1.0}, diverged=DIVERGED)
    with pytest.raises(MetricsError, match="at least one metric"):
        write_leaf(tmp_path, "a", {})


def test_equal_settings_have_equal_hashes():
    assert config_hash({"a": 1, "b": {"c": [1, 2], "d": None}}) == config_hash({"b": {"d": None, "c": (1, 2)}, "a": 1})
    assert config_hash({"a": 1}) != config_hash({"a": 2})
    assert config_hash({"folder": Path("x")}) == config_hash({"folder": "x"})


def test_collect_is_one_row_a_value(leaves, tmp_path):
    frame = collect(leaves, tmp_path)
    assert list(frame.columns) == [
        "dataset", "prior", "lambda", "seed", "stage", "augmentation", "metric", "value", "n", "status", "run",
    ]  # fmt: skip
    assert len(frame) == 5
    row = frame[frame["metric"] == "cnn_acc"].iloc[0]
    assert (row["stage"], row["lambda"], row["seed"], row["value"], row["n"]) == (
        "resnet18",
        3e4,
        1,
        100 / 3,
        360,
    )
    assert row["run"] == "digits/fpi/lambda=30000/seed=1/resnet18"
    assert row["status"] == "ok"


def test_a_divergence_is_a_row_of_its_own(leaves, tmp_path):
    frame = collect(leaves, tmp_path)
    row = frame[frame["status"] != "ok"].iloc[0]
    assert row["status"] == "diverged: variance of class 2 at iteration 3"
    assert row["metric"] == ""
    assert math.isnan(row["value"])


def test_the_order_of_paths_does_not_matter(leaves, tmp_path):
    expected = collect(leaves, tmp_path)
    for order in itertools.permutations(leaves):
        pd.testing.assert_frame_equal(collect([*order, order[0]], tmp_path), expected)


def test_nothing_collected_has_the_same_columns(leaves, tmp_path):
    pd.testing.assert_series_equal(collect([], tmp_path).dtypes, collect(leaves, tmp_path).dtypes)


@pytest.mark.parametrize(
    "run",
    [
        "digits/fpi/lambda=x/seed=0",
        "digits/fpi/seed=0",
        "digits/fpi/lambda=1/seed=-1",
        "digits/fpi/lambda=1/seed=0/swin/temperature=1",
        "digits/real/lambda=0/seed=0/swin/x",
        "fpi/lambda=1/seed=0",
        "a/digits/fpi/lambda=1/seed=0",
    ],
)
def test_a_path_that_does_not_fit_is_refused_in_one_line(tmp_path, run):
    path = write_leaf(tmp_path, run, {"nf_acc": 1.0})
    with pytest.raises(MetricsError, match=r"expected \{dataset\}/\{prior\}") as error:
        collect([path], tmp_path)
    assert "\n" not in str(error.value)


def test_a_weight_written_another_way_is_refused(tmp_path):
    path = write_leaf(tmp_path, "digits/fpi/lambda=1e4/seed=0", {"nf_acc": 1.0})
    with pytest.raises(MetricsError, match="expected lambda=10000"):
        collect([path], tmp_path)


def test_a_path_outside_the_root_is_refused(leaves, tmp_path):
    with pytest.raises(MetricsError, match="under"):
        collect(leaves, tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "JSON object"),
        ("{}", "'metrics'"),
        ('{"metrics": {"nf_acc": NaN}}', "nf_acc: expected a finite number"),
        ('{"metrics": {"nf_acc": 1.0}, "n": "many"}', "n: expected a whole number"),
        ('{"diverged": {"iteration": 3}}', "quantity"),
    ],
)
def test_a_broken_file_is_named(tmp_path, text, message):
    path = tmp_path / "digits/fpi/lambda=1/seed=0/metrics.json"
    write_atomically(path, text)
    with pytest.raises(MetricsError, match=message) as error:
        collect([path], tmp_path)
    assert str(path) in str(error.value)


def test_csv_gives_back_the_same_table(leaves, tmp_path):
    frame = collect(leaves, tmp_path)
    write_csv(frame, tmp_path / "metrics.csv")
    assert "nan" not in (tmp_path / "metrics.csv").read_text().lower()
    pd.testing.assert_frame_equal(read_csv(tmp_path / "metrics.csv"), frame, check_exact=True)


def test_text_that_looks_like_a_missing_value_stays_text(tmp_path):
    frame = collect([write_leaf(tmp_path, "NA/null/lambda=1/seed=0", {"nf_acc": 1.0})], tmp_path)
    write_csv(frame, tmp_path / "metrics.csv")
    assert read_csv(tmp_path / "metrics.csv").loc[0, ["dataset", "prior"]].tolist() == ["NA", "null"]


def test_a_csv_without_a_column_is_refused(tmp_path):
    write_atomically(tmp_path / "metrics.csv", "dataset,prior\na,b\n")
    with pytest.raises(MetricsError, match="expected column lambda"):
        read_csv(tmp_path / "metrics.csv")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_written_file_follows_the_umask(tmp_path):
    (tmp_path / "plain").touch()
    write_atomically(tmp_path / "folder" / "file", b"x")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "folder/file")]
    assert modes[0] == modes[1]
