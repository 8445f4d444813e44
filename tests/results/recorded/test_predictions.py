"""What a flow or a classifier says of each test image."""

from __future__ import annotations

import math
import zipfile

import numpy as np
import pytest
import torch

from nfpi.results.metrics import compute_metrics
from nfpi.results.recorded.predictions import (
    pack_predictions,
    read_packed_predictions,
    read_predictions,
    write_predictions,
)
from nfpi.results.recorded.records import MetricsError
from nfpi.runtime.divergence import Diverged, mark_diverged
from nfpi.runtime.files import write_atomically
from nfpi.runtime.formats import FormatError

LOG_PROB = torch.tensor([[-100.0, -102.5, -300.0], [5.0, 7.0, -1e6], [0.0, 0.0, 1.0]], dtype=torch.float64)
LABELS = torch.tensor([0, 2, 1])


@pytest.fixture
def path(tmp_path):
    """Written predictions."""
    write_predictions(tmp_path / "predictions.npz", LABELS, LOG_PROB)
    return tmp_path / "predictions.npz"


def test_predictions_are_read_back(path):
    predictions = read_predictions(path)
    assert predictions.label.tolist() == [0, 2, 1]
    assert predictions.predicted.tolist() == [0, 1, 2]
    assert predictions.log_prob.dtype == np.float32
    assert predictions.log_prob.tolist() == [-100.0, -1e6, 0.0]
    assert predictions.class_log_prob.dtype == np.float32
    assert np.allclose(predictions.class_log_prob, LOG_PROB.log_softmax(1), rtol=1e-6)
    assert predictions.validation_class_log_prob.shape == (0, 3)


def test_predictions_of_validation_images_are_read_back(tmp_path):
    log_prob = torch.cat([LOG_PROB, torch.tensor([[0.0, -math.inf, -1.0]])])
    write_predictions(tmp_path / "predictions.npz", LABELS, LOG_PROB, (torch.tensor([0, 2, 1, 0]), log_prob))
    predictions = read_predictions(tmp_path / "predictions.npz")
    assert predictions.validation_label.tolist() == [0, 2, 1, 0]
    assert predictions.validation_class_log_prob.dtype == np.float32
    assert np.allclose(predictions.validation_class_log_prob[:3], predictions.class_log_prob)
    assert np.isfinite(predictions.validation_class_log_prob).all()


def test_equal_predictions_are_equal_files(path):
    write_predictions(path.with_name("other.npz"), LABELS, LOG_PROB)
    assert path.with_name("other.npz").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_not_finite_are_refused(tmp_path, value):
    log_prob = LOG_PROB.clone()
    log_prob[0, 1] = value
    with pytest.raises(MetricsError):
        write_predictions(tmp_path / "predictions.npz", LABELS, log_prob)
    assert list(tmp_path.iterdir()) == []


def test_a_divergence_is_raised_again(tmp_path):
    fault = Diverged(3, 2, "variance", 1e6)
    mark_diverged([tmp_path / "metrics.json", tmp_path / "predictions.npz"], fault)
    with pytest.raises(Diverged) as error:
        read_predictions(tmp_path / "predictions.npz")
    assert error.value.record == fault.record


@pytest.mark.parametrize("metrics", [None, "{}", "no JSON"])
def test_a_divergence_that_no_metrics_describe_is_an_error_of_the_file(metrics, tmp_path):
    path = tmp_path / "predictions.npz"
    mark_diverged([path], Diverged(3, 2, "variance", 1e6))
    if metrics is not None:
        (tmp_path / "metrics.json").write_text(metrics)
    with pytest.raises((MetricsError, FormatError)) as error:
        read_predictions(path)
    assert str(tmp_path / ("metrics.json" if metrics == "no JSON" else "predictions.npz")) in str(error.value)


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "predictions.npz"
    for content in (b"", b"PK\x03\x04", b"text"):
        write_atomically(path, content)
        with pytest.raises(MetricsError) as error:
            read_predictions(path)
        assert str(path) in str(error.value)
    np.savez(path, label=np.zeros(3))
    with pytest.raises(MetricsError):
        read_predictions(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": np.array([0, 2, 3], np.int32)}, r"label.*0"),
        ({"label": np.array([0, 2], np.int32)}, "predicted"),
        ({"predicted": np.zeros(3)}, "predicted"),
        ({"log_prob": np.array([0, np.nan, 1], np.float32)}, "log_prob"),
        ({"class_log_prob": np.zeros(3, np.float16)}, "expected"),
        ({"class_log_prob": np.full((3, 3), -np.inf, np.float32)}, "class_log_prob"),
        ({"validation_label": np.zeros(2, np.int32)}, "validation_class_log_prob"),
        ({"more": np.zeros(3)}, "received .*more"),
    ],
)
def test_predictions_of_other_numbers_are_refused(path, changes, message):
    arrays = dict(np.load(path))
    np.savez(path, **(arrays | changes))
    with pytest.raises(MetricsError, match=message) as error:
        read_predictions(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_a_changed_byte_is_refused_or_changes_nothing(path):
    content, expected = path.read_bytes(), read_predictions(path)
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
        try:
            found = read_predictions(path)
        except MetricsError:
            continue
        for name, array in vars(expected).items():
            assert np.array_equal(array, getattr(found, name))


def test_an_entry_that_is_not_an_array_is_refused(path):
    with zipfile.ZipFile(path) as source:
        parts = {name: source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(path, "w") as target:
        for name, part in parts.items():
            target.writestr(name, b"no array" if name == "label.npy" else part)
    with pytest.raises(MetricsError, match="label") as error:
        read_predictions(path)
    assert str(error.value).startswith(f"{path}: ")


def test_predictions_of_several_runs_fit_in_one_file(tmp_path):
    """Metrics of probabilities can be computed again from the rounded log-probabilities."""
    expected, tau = {}, torch.tensor([1.0, 300.0])
    for seed in range(2):
        path = tmp_path / f"{seed}.npz"
        log_prob = tau[seed] * torch.randn(360, 10, generator=torch.Generator().manual_seed(seed))
        labels = torch.arange(360) % 10
        write_predictions(path, labels, log_prob, (labels[:50], log_prob[:50]))
        expected[f"digits/mef/fpi/lambda=1/seed={seed}"] = read_predictions(path)
    (tmp_path / "all.npz").write_bytes(pack_predictions(expected))
    found = read_packed_predictions(tmp_path / "all.npz")
    assert found.keys() == expected.keys()
    for run, predictions in found.items():
        assert np.array_equal(predictions.label, expected[run].label)
        assert np.array_equal(predictions.is_correct, expected[run].is_correct)
        assert np.array_equal(predictions.validation_label, expected[run].validation_label)
        names = ["ece", "nll", "brier"]
        scores = [
            compute_metrics(names, torch.tensor(of.class_log_prob), torch.tensor(of.label))
            for of in (predictions, expected[run])
        ]
        assert scores[0] == pytest.approx(scores[1], rel=1e-3)
    assert (tmp_path / "all.npz").stat().st_size < 1.5 * (tmp_path / "0.npz").stat().st_size


@pytest.mark.parametrize(
    "arrays",
    [
        {"a/label": np.zeros(3, np.int32)},
        {"a/label": np.zeros(3, np.int32), "a/predicted": np.zeros(2, np.int32)},
        {"a/label": np.zeros(3), "a/predicted": np.zeros(3, np.int32)},
    ],
)
def test_other_arrays_in_a_file_of_several_runs_are_refused(tmp_path, arrays):
    np.savez(tmp_path / "all.npz", **arrays)
    with pytest.raises(MetricsError, match=r"all\.npz: a: "):
        read_packed_predictions(tmp_path / "all.npz")
