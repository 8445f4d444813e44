"""What a stage declares is what it leaves, whether its fit converged or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nfpi.results.recorded.predictions import read_predictions
from nfpi.runs import GENERATED
from nfpi.runtime.divergence import Diverged
from nfpi.runtime.files import write_atomically
from nfpi.runtime.manifests import SUFFIX
from nfpi.runtime.tensors import load_tensors

from .conftest import ROOT, STAGE, call, check_call, format_options, list_files, read_error_line, read_json

OF_A_RUN = (
    *("prepare-data", "start-flow", "fit-prior", "train-flow", "refit-prior", "evaluate", "generate", "augment"),
    *("train-classifier", "test-classifier", "measure-samples", "extract-features"),
)
AFTER_THE_FIT = OF_A_RUN[3:-1]
OF_TABLES = ("table", "claims")
DECLARE_NONE = {"export"}
"""Its files depend on the images."""
TESTED_ELSEWHERE = {"encode-data", "import-model", "figure"}
"""Of an autoencoder in tests/data; of trained models and of figures, beside this module."""


def declared(stage: str, **options: str) -> set[str]:
    return set(STAGE[stage].get_output_files(**options).values())


@pytest.mark.parametrize("stage", OF_A_RUN)
def test_a_stage_of_a_run_leaves_exactly_what_it_declares(complete_run, stage, tmp_path):
    check_call(*complete_run.make_command(stage, output=tmp_path / "new/folder"))
    assert list_files(tmp_path) == {f"new/folder/{file}" for file in declared(stage)}


def test_stages_of_tables_leave_exactly_what_they_declare(complete_run, tables, tmp_path):
    assert list_files(tables) == declared("table", name="table2")
    rows = [complete_run.row, complete_run.row | {"label": "other", "experiment": 1}]
    sides = {side: {"table": "t", "row": label} for side, label in (("first", "FPI"), ("second", "other"))}
    claim = {"statement": "Equal", "comparisons": [sides | {"smallest_effect": 0.5}]}
    options = {"claims": {"equal": claim}, "tables": {"t": {}}, "rows": {"t": rows}, "seeds": [3]}
    paths = {"root": complete_run.root, "reference": ROOT / "workflow/reference/paper.csv", "output": tmp_path / "new"}
    check_call("claims", *format_options(**options, **paths))
    assert list_files(tmp_path / "new") == declared("claims")


def test_the_download_of_weights_leaves_exactly_what_it_declares(tmp_path, monkeypatch):
    monkeypatch.setattr("nfpi.classifiers.registry.published_weights", lambda _: {"weight": torch.zeros(2)})
    check_call("download-weights", "--output", tmp_path)
    assert list_files(tmp_path) == declared("download-weights", model="eva02")


def test_every_stage_is_asked_what_it_leaves():
    assert {*OF_A_RUN, *OF_TABLES, "download-weights"} | DECLARE_NONE | TESTED_ELSEWHERE == set(STAGE)
    assert {name for name, stage in STAGE.items() if not stage.outputs} == DECLARE_NONE


# ---- a fit that diverged ------------------------------------------------------------------------------------


def assert_marked(path: Path, fault: dict[str, Any]) -> None:
    """A file stands for the divergence, in its own form."""
    match path.suffix:
        case ".json":
            assert read_json(path) == {"diverged": fault}
        case ".safetensors":
            with pytest.raises(Diverged) as caught:
                load_tensors(path)
            assert caught.value.record == fault
        case ".npz":
            assert np.load(path).files == []
            if path.name == "predictions.npz":
                with pytest.raises(Diverged) as caught:
                    read_predictions(path)
                assert caught.value.record == fault
        case ".npy":
            assert np.load(path).size == 0
        case ".csv":
            assert path.read_text() == "epoch\n"
        case other:
            pytest.fail(other)


@pytest.mark.parametrize("stage", AFTER_THE_FIT)
def test_a_divergence_marks_all_outputs_of_the_stages_after_the_fit(diverged_run, stage, tmp_path):
    fault = read_json(diverged_run.folder / "metrics.json")["diverged"]
    check_call(*diverged_run.make_command(stage, output=tmp_path / "new/folder"))
    assert list_files(tmp_path) == {f"new/folder/{file}" for file in declared(stage)}
    for file in declared(stage):
        if not file.endswith(SUFFIX):
            assert_marked(tmp_path / "new/folder" / file, fault)


def test_a_divergence_says_of_what_fit_it_is(diverged_run):
    fault = read_json(diverged_run.folder / "metrics.json")["diverged"]
    assert fault.keys() == {"iteration", "class_index", "quantity", "lambda", "relative_weight", "context"}
    assert (fault["lambda"], fault["context"]["seed"]) == (1e6, 3)
    assert fault["context"]["prior"]["update"] == "exact"
    assert_marked(diverged_run.folder / "fit/prior.safetensors", fault)


def test_a_fit_that_diverged_leaves_its_residuals(diverged_run):
    fault = read_json(diverged_run.folder / "metrics.json")["diverged"]
    header, *rows = (diverged_run.folder / "fit/fixed_point.csv").read_text().splitlines()
    assert header == "iteration,mean_residual,variance_residual"
    assert len(rows) < fault["iteration"]


def test_there_is_nothing_to_export_of_a_fit_that_diverged(diverged_run, tmp_path, capsys):
    images = diverged_run.locate_folder(GENERATED, 1)
    assert call("export", "--images", images, "--output", tmp_path / "png") == 1
    assert "the fit of the class Gaussians diverged" in read_error_line(capsys)
    assert not (tmp_path / "png").exists()


# ---- a stage that fails leaves nothing ----------------------------------------------------------------------


LAST_WRITTEN = {
    "start-flow": "nfpi.training.state.save_tensors",
    "fit-prior": "nfpi.priors.files.save_prior",
    "train-flow": "nfpi.model.files.write_atomically",
    "evaluate": "nfpi.stages.common.write_metrics",
    "train-classifier": "nfpi.stages.train_classifier.write_metrics",
    "test-classifier": "nfpi.stages.common.write_metrics",
}
"""What writes a stage's last file."""


@pytest.mark.parametrize(("stage", "function"), LAST_WRITTEN.items())
def test_outputs_appear_together_or_not_at_all(complete_run, stage, function, tmp_path, monkeypatch, capsys):
    """Where the last file of a stage cannot be written, those of an earlier run stay."""
    for file in declared(stage):
        write_atomically(tmp_path / "folder" / file, "earlier")

    def fail(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error", "file")

    monkeypatch.setattr(function, fail)
    assert call(*complete_run.make_command(stage, output=tmp_path / "folder")) == 1
    assert "nfpi: error: file: Input/output error" in capsys.readouterr().err
    left = {file for file in list_files(tmp_path / "folder") if not file.startswith(".checkpoint-")}
    assert left == declared(stage)
    assert all((tmp_path / "folder" / file).read_text() == "earlier" for file in left)
