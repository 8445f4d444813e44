"""What stands at the end of a call that has gone well."""

from __future__ import annotations

from pathlib import Path

import pytest

from nfpi.results.tables.rows import list_table_rows
from nfpi.workflow import Targets

from .conftest import resolve_settings


@pytest.fixture
def shown(tmp_path: Path):
    """Lines that are printed after a call with these targets, all of which are made; tables hold their names."""
    targets = Targets(resolve_settings("fashion_mnist_small", results=str(tmp_path)))

    def show(*requested: str, unmade: str = "") -> list[str]:
        for name in targets.names:
            for path in map(Path, targets.files(name) if name != unmade else ()):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(
                    f"| table {name} |\n" if name in targets.resolved.config.tables else "", encoding="utf-8"
                )
        return targets.describe(requested).replace(f"{tmp_path}/", "").splitlines()

    return show


def test_a_table_stands_there_with_its_files_and_figures(shown) -> None:
    folder = "fashion_mnist_small"
    assert shown("table2") == [
        "",
        "| table table2 |",
        "",
        f"table:  {folder}/tables/table2.md (and .csv, .tex, .html)",
        f"figure: {folder}/figures/accuracy_against_weight.png",
    ]


@pytest.mark.parametrize("requested", [(), ("all",)])
def test_all_are_shown_where_all_were_asked_for(shown, requested) -> None:
    lines = shown(*requested)
    assert "| table table2 |" in lines
    assert {"samples", "residuals", "claims"} < {Path(line).stem for line in lines if line.startswith("figure: ")}


def test_of_what_was_asked_for_only_targets_are_shown(shown) -> None:
    assert shown("samples") == ["", "figure: fashion_mnist_small/figures/samples.png"]
    assert shown("results/demo/digits/splits/train/meta.json") == []


@pytest.mark.parametrize("unmade", ["table2", "samples", "claims"])
def test_what_was_not_made_is_not_named(shown, unmade) -> None:
    """After `--until`, say."""
    lines = shown(unmade=unmade)
    assert lines
    assert not [line for line in lines if f"/{unmade}." in line or line == f"| table {unmade} |"]


@pytest.mark.parametrize("name", ["table1", "table2"])  # rows of table1 that are not the best are hidden
def test_a_preset_of_the_user_ends_with_the_command_that_uses_its_best_flow(tmp_path: Path, name: str) -> None:
    preset = tmp_path / "mine.yaml"
    preset.write_text("extends: demo\n", encoding="utf-8")
    targets = Targets(resolve_settings(str(preset), results=str(tmp_path)))
    table = Path(targets.table(name)["csv"])
    table.parent.mkdir(parents=True)
    rows = list_table_rows(targets.resolved.config, name)
    lines = [f"{row.experiment},{row.weight},{row.weight},validation_nf_acc" for row in rows] + [",,,"]
    table.write_text("\n".join(["experiment,lambda,validation,chosen_by", *lines]), encoding="utf-8")
    table.with_suffix(".md").write_text("| table |\n", encoding="utf-8")
    assert "use it" not in targets.describe([name])  # no model is there
    best = max((row for row in rows if row.flow_runs), key=lambda row: row.weight or 0)
    for run in (run for row in rows for run in row.flow_runs):
        Path(targets.resolved.layout.of(run), "model").mkdir(parents=True, exist_ok=True)
    *_, last = targets.describe([name]).splitlines()
    of_best = f"{targets.resolved.layout.of(best.flow_runs[0])}/model"
    assert last == f"use it: nfpi classify {of_best} photo.jpg --resize"
    datasets = targets.resolved.config.datasets
    datasets["digits"] = datasets["digits"].model_copy(update={"source": "arrays"})
    *_, last = targets.describe([name]).splitlines()
    assert last == f'use it: ClassConditionalFlow.from_pretrained("{of_best}").predict(vectors)'
