"""The target of claims: which runs it asks for, and what a changed claim makes again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from nfpi.evidence.keeping import gather_evidence
from nfpi.evidence.rebuilding import RebuiltResults
from nfpi.results.claims.layout import write_claims
from nfpi.results.recorded.calls import StoredSettings
from nfpi.results.recorded.predictions import write_predictions
from nfpi.results.recorded.records import write_metrics
from nfpi.results.tables.rows import list_tabled_runs
from nfpi.runs import Run
from nfpi.stages.jobs import Planned
from nfpi.stages.tables_and_figures import JudgeClaims

from .conftest import Job, Project, list_flow_jobs_of_run, list_jobs_of_run, make_planning, resolve_settings

REFERENCE = Path(__file__).parents[2] / "workflow/reference/paper.csv"
CLAIMS: Job = ("claims", "results/mine")
ROWS: list[dict[str, Any]] = [
    {"label": "ours", "dataset": "digits", "lambdas": [10, 100, 1000], "classifier": None},
    {"label": "kept", "dataset": "digits", "lambdas": [0]},
]
MINE: dict[str, Any] = {
    "tables": {"mine": {"metrics": ["nf_acc"], "experiments": ROWS}},
}
RUN = "digits/mef/{}/lambda={}/seed=0"


def claim(first: str | float, **changes: Any) -> dict[str, Any]:
    """Ours at one λ against the initial Gaussians, kept."""
    rows = {"first": {"table": "mine", "row": "ours", "lambda": first}, "second": {"table": "mine", "row": "kept"}}
    return {"statement": "Ours is better", "comparisons": [{**rows, "smallest_effect": 0.5, **changes}]}


def inputs_of(changes: dict[str, Any] | None = None, /, **claims: Any) -> list[str]:
    only = dict.fromkeys(resolve_settings().config.claims)  # those of the preset are left out
    planning = make_planning(tables=MINE["tables"], claims=only | claims, **(changes or {}))
    return planning.inputs(JudgeClaims)({})["runs"]


def weights_in(files: list[str]) -> set[str]:
    return {part.removeprefix("lambda=") for file in files for part in file.split("/") if part.startswith("lambda=")}


def test_the_runs_of_the_rows_that_are_named_are_asked_for() -> None:
    assert weights_in(inputs_of(a=claim("max"))) == {"0", "1000"}
    assert weights_in(inputs_of(a=claim("min"), b=claim(100))) == {"0", "10", "100"}
    assert weights_in(inputs_of(a=claim("best"))) == {"0", "10", "100", "1000"}


def test_a_command_names_the_runs_of_one_seed_alone() -> None:
    resolved = resolve_settings("digits")
    declared = JudgeClaims.plan(Planned(resolved.config), {}).declaration
    assert {run["seed"] for rows in declared["rows"].values() for row in rows for run in row["flow_runs"]} == {0}
    assert declared["seeds"] == list(range(10))
    assert len(json.dumps(declared)) < 2**17  # what Linux lets one argument be: Snakemake hands a whole command to bash


def write_run(root: Path, run: Run) -> None:
    """Write the metrics and predictions of a flow, best at λ = 100."""
    value = 80 + run.seed + {0: 0, 10: 2, 100: 5, 1000: 3}[int(run.weight or 0)] + run.seed * (run.weight or 0) / 1e4
    metrics = {"nf_acc": value, "validation_nf_acc": value}
    about: dict[str, Any] = {"run": run, "n": 4, "seed": run.seed, "settings": {}, "device": "cpu", "seconds": 1.0}
    write_metrics(root / run.folder / "metrics.json", metrics, **about)
    write_predictions(root / run.folder / "predictions.npz", torch.arange(4), torch.eye(4))


@pytest.mark.parametrize("choice", ["max", "min", 100, "best", "inner_best"])
def test_claims_of_the_workflow_and_of_its_evidence_are_the_same(tmp_path: Path, choice: str | float) -> None:
    rows = [{**row, "classifier": None} for row in ROWS]
    others: dict[str, Any] = dict.fromkeys(resolve_settings().config.claims)
    tables = {"*": None, "mine": {"metrics": ["nf_acc"], "experiments": rows}}
    resolved = resolve_settings(tables=tables, figures={"*": None}, claims=others | {"a": claim(choice)}, seeds=[0, 1])
    root = tmp_path / "mine"
    for run in list_tabled_runs(resolved.config):
        write_run(root, run)
    declared = JudgeClaims.plan(Planned(resolved.config), {}).declaration
    JudgeClaims(settings=declared, root=root, reference=REFERENCE, output=tmp_path / "judged").run()
    gather_evidence(root, tmp_path / "evidence", StoredSettings.of("mine", resolved.config))
    rebuilt = RebuiltResults.read(tmp_path / "evidence")
    write_claims(rebuilt.judge_claims(), tmp_path / "rebuilt")
    for name in ("claims.csv", "claims.md", "claims.tex", "claims.html"):
        assert (tmp_path / "judged" / name).read_bytes() == (tmp_path / "rebuilt" / name).read_bytes()
    chosen = {"max": "10³", "min": "10", 100: "100", "best": "100", "inner_best": "100"}[choice]
    assert f"(ours, λ = {chosen}) − kept" in (tmp_path / "judged/claims.md").read_text()


def test_a_changed_claim_is_judged_again_and_nothing_else_is_made(fresh_project: Project) -> None:
    preset = {"extends": "demo", "tables": MINE["tables"]}
    others: dict[str, Any] = dict.fromkeys(resolve_settings().config.claims)
    fresh_project.write("mine.yaml", preset | {"claims": others | {"a": claim("max", test="mcnemar")}})
    call = ("claims", "--config", "preset=mine.yaml")
    fresh_project.run_snakemake(*call)
    kept = list_jobs_of_run(RUN.format("baseline", 0))
    assert fresh_project.list_finished_jobs() >= {CLAIMS} | kept | list_flow_jobs_of_run(RUN.format("fpi", 1000))
    assert not any(stage == "table" for stage, _ in fresh_project.list_finished_jobs())
    assert fresh_project.plan_jobs(*call) == set()
    fresh_project.write(
        "mine.yaml", preset | {"claims": others | {"a": claim("max", test="mcnemar", smallest_effect=1)}}
    )
    assert fresh_project.plan_jobs(*call) == {CLAIMS}
