"""Of results that were moved or copied, changed settings are refused, as Snakemake would not notice them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from nfpi.config.base import ConfigError
from nfpi.config.settings import Config
from nfpi.results.recorded.settings import StoredSettings, write_settings
from nfpi.runs import Layout
from nfpi.workflow.records import check_origin, record_origin

UNKNOWN = "moved or copied here, or made with another .snakemake folder"
CHANGED = {"evaluation": {"batch_size": 77}}


def test_changed_settings_of_moved_results_are_refused_until_snakemake_remembers_them(fresh_project):
    results = fresh_project.folder / "results"
    fresh_project.run_snakemake("table4")
    planned = fresh_project.plan_jobs("table4", overlay=CHANGED)
    assert "evaluate" in {stage for stage, _ in planned}  # known here: the change reruns the evaluations

    fresh_project.write("renamed.yaml", {"extends": "demo"})
    (results / "demo").rename(results / "renamed")
    renamed = ("--config", "preset=renamed.yaml")
    same = fresh_project.run_snakemake("table4", "--forcerun", "evaluate", *renamed)  # new jobs change nothing
    assert f"results/renamed: {UNKNOWN}" in same.stdout

    fresh_project.write("renamed.yaml", {"extends": "demo", **CHANGED})
    refused = fresh_project.run_snakemake("table4", *renamed, check=False)
    assert refused.returncode == 1
    (line,) = [line for line in refused.stdout.splitlines() if UNKNOWN in line]
    assert "the changed settings (evaluation.batch_size: " in line
    assert "Traceback" not in refused.stdout

    fresh_project.write("renamed.yaml", {"extends": "demo"})
    before = fresh_project.read_calls()
    for part in (("table4",), ("--until", "prepare_data"), ("--omit-from", "train_flow")):
        fresh_project.run_snakemake(*part, "--touch", "--forceall", *renamed)
    assert UNKNOWN in fresh_project.run_snakemake("table4", "--dry-run", *renamed).stdout
    fresh_project.run_snakemake("all", "--touch", "--forceall", *renamed)  # most files are not made yet
    assert fresh_project.read_calls() == before  # runs nothing
    fresh_project.write("renamed.yaml", {"extends": "demo", **CHANGED})
    known = fresh_project.run_snakemake("table4", "--dry-run", *renamed)
    assert UNKNOWN not in known.stdout
    assert re.search(r"^evaluate +\d+$", known.stdout, re.MULTILINE)


def test_settings_on_which_no_file_depends_may_change(fresh_project):
    fresh_project.run_snakemake("table4")
    shutil.rmtree(fresh_project.folder / ".snakemake")
    changes = {
        "seeds": [0, 1],
        "training": {"workers": 1},
        "classifiers": {"resnet18": {"checkpoint_minutes": 3}},
        "priors": {"new": {"alpha": 3}},
        "figures": {"residuals": None},
    }
    assert UNKNOWN in fresh_project.run_snakemake("table4", "--dry-run", overlay=changes).stdout


def test_a_prior_may_be_named_as_a_setting_that_no_result_depends_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = Path("results/mine")
    plans = [
        SimpleNamespace(
            layout=Layout(root),
            preset="mine",
            resolved=SimpleNamespace(file=None),
            config=Config(
                priors={"keep": {"alpha": alpha}}, datasets={"own": {"source": "imagefolder", "folder": folder}}
            ),
        )
        for alpha, folder in ((3, "here"), (4, "here"), (3, "/other/here"), (3, "elsewhere"))
    ]
    write_settings(root, StoredSettings.of("mine", plans[0].config))
    record_origin(plans[0], remembered=False)
    shutil.rmtree(".snakemake")
    warning = check_origin(plans[0])
    assert UNKNOWN in warning
    # Snakemake compares times, which `cp -r` sets anew, in any order
    assert "results may also be made again if the copy did not keep the times of files" in warning
    assert check_origin(plans[2]) == warning
    with pytest.raises(ConfigError, match=r"priors\.keep\.alpha"):
        check_origin(plans[1])
    with pytest.raises(ConfigError, match=r"datasets\.own\.folder"):
        check_origin(plans[3])


def test_a_copy_and_its_original_are_told_apart(fresh_project):
    results = fresh_project.folder / "results"
    fresh_project.write("copied.yaml", {"extends": "demo"})
    fresh_project.run_snakemake("table4")
    shutil.copytree(results / "demo", results / "copied")
    copied = ("--config", "preset=copied.yaml")
    assert f"results/copied: {UNKNOWN}" in fresh_project.run_snakemake("table4", "--dry-run", *copied).stdout
    fresh_project.run_snakemake("--touch", "--forceall", *copied)
    for call in ((), copied):
        assert UNKNOWN not in fresh_project.run_snakemake("table4", *call).stdout


def test_results_without_an_identifier_are_used_as_before(fresh_project):
    fresh_project.run_snakemake("table4")
    (fresh_project.folder / "results/demo/.snakemake_id").unlink()
    shutil.rmtree(fresh_project.folder / ".snakemake/nfpi")
    assert UNKNOWN not in fresh_project.run_snakemake("table4", overlay=CHANGED).stdout
    assert (fresh_project.folder / "results/demo/.snakemake_id").is_file()


def test_a_damaged_identifier_is_unknown_until_snakemake_remembers_the_results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    resolved = SimpleNamespace(file=None)
    plan = SimpleNamespace(layout=Layout(Path("results/mine")), preset="mine", config=Config(), resolved=resolved)
    write_settings(plan.layout.root, StoredSettings.of(plan.preset, plan.config))
    record_origin(plan, remembered=False)
    assert check_origin(plan) is None
    (plan.layout.root / ".snakemake_id").write_bytes(b"\xff")
    assert UNKNOWN in check_origin(plan)
    record_origin(plan, remembered=True)
    assert check_origin(plan) is None
