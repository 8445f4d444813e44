"""Of results that were moved or copied, changed settings are refused, as Snakemake would not notice them."""

from __future__ import annotations

import json
import shutil

CHANGED = {"evaluation": {"batch_size": 77}}


def test_changed_settings_of_moved_results_are_refused_not_ignored(fresh_project):
    results = fresh_project.folder / "results"
    fresh_project.run_snakemake("table4")
    other = fresh_project.run_snakemake("table4", "--dry-run", overlay=CHANGED)
    assert "evaluation.batch_size" in other.stdout  # known here: the change reruns the evaluations

    preset = fresh_project.write("renamed.yaml", {"extends": "demo"})
    (results / "demo").rename(results / "renamed")
    renamed = (f"preset={preset.name}",)
    same = fresh_project.run_snakemake("table4", "--config", *renamed)
    assert "results/renamed: moved or copied here" in same.stdout
    assert "are not noticed" in same.stdout

    fresh_project.write("renamed.yaml", {"extends": "demo", **CHANGED})
    refused = fresh_project.run_snakemake("table4", "--config", *renamed, check=False)
    assert refused.returncode == 1
    (line,) = [line for line in refused.stdout.splitlines() if "results/renamed: moved or copied here" in line]
    assert "(evaluation.batch_size: " in line
    assert " → 77)" in line
    assert "Traceback" not in refused.stdout

    (results / "renamed/settings.json").unlink()  # the files are kept as they are
    assert "moved or copied" not in fresh_project.run_snakemake("table4", "--config", *renamed).stdout


def test_a_copy_and_its_original_are_told_apart(fresh_project):
    results = fresh_project.folder / "results"
    fresh_project.write("copied.yaml", {"extends": "demo"})
    fresh_project.run_snakemake("table4")
    shutil.copytree(results / "demo", results / "copied")
    copied = ("--config", "preset=copied.yaml")
    assert "results/copied: moved or copied here" in fresh_project.run_snakemake("table4", *copied).stdout
    assert "moved or copied" not in fresh_project.run_snakemake("table4").stdout
    fresh_project.run_snakemake("table4", "--forcerun", "evaluate", *copied)  # now noted here, too
    for call in ((), copied):
        assert "moved or copied" not in fresh_project.run_snakemake("table4", *call).stdout


def test_results_without_an_identifier_are_used_as_before(fresh_project):
    fresh_project.run_snakemake("table4")
    (fresh_project.folder / "results/demo/.snakemake_id").unlink()
    assert "moved or copied" not in fresh_project.run_snakemake("table4", overlay=CHANGED).stdout
    assert json.loads((fresh_project.folder / "results/demo/settings.json").read_text())["settings"]["evaluation"]
