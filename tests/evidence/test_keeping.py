"""Evidence that is kept, added to, and refused."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nfpi.config.settings import Config
from nfpi.evidence.keeping import EvidenceError, read_kept
from nfpi.results.recorded.calls import StoredSettings, read_settings
from nfpi.results.recorded.predictions import read_predictions
from nfpi.results.recorded.records import MetricsError
from nfpi.results.recorded.runs import find_runs
from nfpi.runs import Run
from nfpi.runtime.chains import Chain
from nfpi.runtime.manifests import Input, write_manifest

from .conftest import Results

FLOW = Run(dataset="animals", seed=0, flow="mef", prior="fpi", weight=1e4)


def test_metrics_are_kept_as_they_are_and_predictions_where_a_table_compares_them(results: Results):
    results.make_runs(0)
    assert results.gather().seeds == [0]
    kept = read_kept(results.evidence)
    assert len(kept.runs) == 6
    assert {item.run: item.record for item in kept.runs} == {item.run: item.record for item in find_runs(results.root)}
    assert [item.run for item in kept.runs] == [item.run for item in find_runs(results.root)]
    made = read_predictions(results.root / FLOW.folder / "predictions.npz")
    assert np.array_equal(kept.predictions[FLOW].predicted, made.predicted)
    assert np.array_equal(kept.predictions[FLOW].label, made.label)
    results.make_runs(1)
    results.gather()
    assert not read_kept(results.evidence).predictions  # a table over seeds compares no images
    assert not (results.evidence / "predictions.npz").exists()


def test_probabilities_are_kept_where_a_table_has_metrics_of_them(results: Results):
    settings = results.stored.config.model_dump()
    settings["tables"]["table2"]["metrics"] = ["nf_acc", "ece"]
    results.stored = type(results.stored).of("mine", type(results.stored.config).model_validate(settings))
    for seed in (0, 1):
        results.make_runs(seed)
    results.gather()
    made = read_predictions(results.root / FLOW.folder / "predictions.npz")
    for _ in range(2):
        kept = read_kept(results.evidence).predictions[FLOW]
        assert kept.class_log_prob == pytest.approx(made.class_log_prob, rel=1e-3)
        results.gather()


def test_checksums_are_those_of_the_usual_command(results: Results):
    results.make_runs(0)
    results.gather()
    done = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=results.evidence, capture_output=True)
    assert done.returncode == 0
    listed = {line.split()[1] for line in (results.evidence / "SHA256SUMS").read_text().splitlines()}
    assert listed == {path.name for path in results.evidence.iterdir()} - {"SHA256SUMS"}
    before = {path.name: path.read_bytes() for path in results.evidence.iterdir()}
    results.gather()
    assert {path.name: path.read_bytes() for path in results.evidence.iterdir()} == before


def test_the_settings_rebuild_the_config_without_paths_of_the_machine(results: Results, tmp_path):
    settings = results.stored.config.model_dump() | {"datasets": {"animals": {"folder": "/somewhere/of/mine/images"}}}
    results.stored = type(results.stored).of("mine", type(results.stored.config).model_validate(settings))
    results.make_runs(0)
    results.make_runs(2)
    results.gather()
    found = read_settings(results.evidence)
    assert (found.preset, found.config.seeds) == ("mine", [0, 2])
    assert found.config.tables == results.stored.config.tables
    assert "/somewhere" not in (results.evidence / "settings.json").read_text()


def test_more_seeds_are_added_to_those_that_are_there(results: Results):
    results.make_runs(0)
    results.gather()
    shutil.rmtree(results.root)
    results.make_runs(1)
    assert results.gather().seeds == [0, 1]
    kept = [item.run for item in read_kept(results.evidence).runs]
    assert len(kept) == 12
    assert FLOW in kept
    before = (results.evidence / "SHA256SUMS").read_bytes()
    results.gather()
    assert (results.evidence / "SHA256SUMS").read_bytes() == before


def test_seeds_of_runs_that_are_in_no_table_any_more_are_not_planned(results: Results):
    """They would turn the comparison of images of a single seed into one over seeds."""
    results.make_runs(0)
    results.make_runs(1)
    results.gather()
    later = results.stored.config.model_dump() | {"seeds": [3]}
    later["tables"]["table2"]["experiments"][0]["lambdas"] = [10, 20]
    results.stored = StoredSettings.of("mine", Config.model_validate(later))
    results.make_runs(3)
    assert results.gather().seeds == [3]
    assert read_settings(results.evidence).config.seeds == [3]
    assert FLOW in {item.run for item in read_kept(results.evidence).runs}


def test_a_run_of_other_settings_is_refused_and_nothing_changes(results: Results):
    results.make_runs(0)
    results.gather()
    before = (results.evidence / "SHA256SUMS").read_bytes()
    results.make_runs(0, epochs=3)
    with pytest.raises(EvidenceError, match=r"training\.epochs"):
        results.gather()
    assert (results.evidence / "SHA256SUMS").read_bytes() == before
    assert len(read_kept(results.evidence).runs) == 6
    results.gather(with_other_settings=True)
    assert {item.run: item.record for item in read_kept(results.evidence).runs} == {
        item.run: item.record for item in find_runs(results.root)
    }


def test_another_seed_of_other_settings_is_refused(results: Results):
    results.make_runs(0)
    results.gather()
    results.make_runs(1, epochs=3)
    with pytest.raises(EvidenceError, match=r"seed=1.*training\.epochs"):
        results.gather()
    results.gather(with_other_settings=True)


def test_a_run_of_another_seed_is_named_if_the_settings_differ_from_it_alone(results: Results):
    other = replace(FLOW, seed=1)
    results.measure(FLOW)
    results.measure(other, epochs=3)
    path = results.root / other.folder / "metrics.json"
    complete = path.read_text()
    record = json.loads(complete)
    del record["settings"]["training"]["epochs"]  # unknown
    path.write_text(json.dumps(record))
    results.gather()
    path.write_text(complete)
    with pytest.raises(EvidenceError, match=r"seed=1.*training\.epochs"):
        results.gather()


def test_other_values_under_the_same_settings_replace_the_earlier_ones(results: Results):
    results.make_runs(0)
    results.gather()
    results.make_runs(0, shift=1.0)
    results.gather()
    (kept,) = (item for item in read_kept(results.evidence).runs if item.run == FLOW)
    assert kept.metrics["nf_acc"] == 86


@pytest.mark.parametrize("name", ["metrics.json", "predictions.npz"])
def test_a_damaged_file_is_refused(results: Results, name):
    results.make_runs(0)
    path = results.root / FLOW.folder / name
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises((EvidenceError, MetricsError), match=name):
        results.gather()
    assert not results.evidence.exists()


def write_run_manifest(results: Results, run: Run, **contents: str) -> None:
    """Write the manifest of a run that `evaluate` would write."""
    folder = results.root / run.folder
    outputs = [folder / "metrics.json", folder / "predictions.npz"]
    path = folder / "metrics.manifest.json"
    inputs = [Input(name=name, product=name, path="absent", key="key", content=contents[name]) for name in contents]
    write_manifest(path, "evaluate", "metrics", outputs, key="key", inputs=inputs)


def test_runs_of_one_data_set_made_from_other_images_are_refused_by_name_and_nothing_is_written(results: Results):
    results.make_runs(0)
    baseline, second = Run(dataset="animals", seed=0, flow="mef", prior="baseline", weight=0), replace(FLOW, seed=1)
    results.measure(second)
    write_run_manifest(results, baseline, data="a")
    write_run_manifest(results, FLOW, data="a")
    write_run_manifest(results, second, data="b")
    with pytest.raises(EvidenceError, match=r"seed=1.*seed=0") as fault:
        results.gather()
    assert len(str(fault.value).splitlines()) == 1
    assert not results.evidence.exists()
    write_run_manifest(results, second, data="a")
    assert results.gather().seeds == [0, 1]


def test_each_seed_of_own_splits_has_its_own_images(results: Results):
    settings = results.stored.config.model_dump() | {"datasets": {"animals": {"split_seed": "per_seed"}}}
    results.stored = replace(results.stored, config=type(results.stored.config).model_validate(settings))
    baseline, second = Run(dataset="animals", seed=0, flow="mef", prior="baseline", weight=0), replace(FLOW, seed=1)
    for run, data in ((baseline, "a"), (FLOW, "a"), (second, "b")):
        results.measure(run)
        write_run_manifest(results, run, data=data)
    assert results.gather().seeds == [0, 1]
    write_run_manifest(results, baseline, data="b")
    with pytest.raises(EvidenceError, match="lambda=10000/seed=0"):
        results.gather()


def test_runs_whose_manifests_name_no_data_set_are_accepted(results: Results):
    results.make_runs(0)
    write_run_manifest(results, FLOW)
    results.measure(replace(FLOW, seed=1))
    write_run_manifest(results, replace(FLOW, seed=1), data="a")
    assert results.gather().seeds == [0, 1]


class Expecting(Chain):
    """A chain of products that should all have one key."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key

    def find_fault(self, path: Path) -> str:
        manifest = self.read(path)
        return f"{path}: expected other settings" if manifest is not None and manifest.key != self.key else ""


def test_a_run_that_was_not_made_again_after_a_change_of_the_settings_is_refused(results: Results):
    results.make_runs(0)
    write_run_manifest(results, FLOW)
    results.gather()
    with pytest.raises(EvidenceError, match=FLOW.folder):
        results.gather(chain=Expecting("of the present settings"))
    assert results.gather(chain=Expecting("other"), with_other_settings=True).seeds == [0]


def test_a_table_of_the_evidence_that_does_not_fit_the_new_settings_is_named_with_the_folder(results: Results):
    """The preset has lost the table and its prior since."""
    present = results.stored
    settings, own = present.config.model_dump(), {"dataset": "animals", "prior": "mine", "lambdas": [1.0]}
    settings["priors"]["mine"] = {"method": "fixed_point"}
    settings["tables"]["own"] = {"experiments": [own]}
    results.stored = replace(present, config=type(present.config).model_validate(settings))
    results.make_runs(0)
    results.gather()
    before = (results.evidence / "settings.json").read_bytes()
    results.stored = present
    with pytest.raises(EvidenceError, match=r"evidence/mine.*tables\.own") as fault:
        results.gather()
    assert len(str(fault.value).splitlines()) == 1
    assert (results.evidence / "settings.json").read_bytes() == before


def test_damaged_evidence_is_not_added_to(results: Results):
    results.make_runs(0)
    results.gather()
    path = results.evidence / "runs.csv"
    path.write_text(path.read_text().replace("85", "95"))
    shutil.rmtree(results.root)
    results.make_runs(1)
    with pytest.raises(EvidenceError, match=r"runs\.csv"):
        results.gather()


def test_without_runs_there_is_no_evidence(results: Results):
    results.root.mkdir(parents=True)
    with pytest.raises(EvidenceError):
        results.gather()
