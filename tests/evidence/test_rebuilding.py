"""Tables, figures and the folder that they are rebuilt from, whole and damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from nfpi.cli import main
from nfpi.config.settings import Config
from nfpi.evidence.keeping import EvidenceError
from nfpi.evidence.rebuilding import RebuiltResults
from nfpi.results.recorded.calls import StoredSettings
from nfpi.results.recorded.runs import collect, find_runs
from nfpi.results.tables.building import accuracy_table, read_reference
from nfpi.results.tables.rows import list_table_rows
from nfpi.runtime.files import file_digest
from nfpi.runtime.formats import FormatError

from .conftest import CONFIG, Results

REFERENCE = Path(__file__).parents[2] / "workflow/reference/paper.csv"


def read(results: Results) -> RebuiltResults:
    return RebuiltResults.read(results.evidence)


def record_checksum(folder: Path, name: str) -> None:
    """List a file anew, as one who changes it on purpose would."""
    sums = folder / "SHA256SUMS"
    lines = [line for line in sums.read_text().splitlines() if not line.endswith(f"  {name}")]
    sums.write_text("\n".join([*lines, f"{file_digest(folder / name)}  {name}"]) + "\n")


def edit_runs(folder: Path, old: str, new: str) -> None:
    """Change runs.csv, and list it anew."""
    path = folder / "runs.csv"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    record_checksum(folder, "runs.csv")


@pytest.fixture
def kept(results: Results) -> Results:
    """Evidence of two seeds, the results of which are gone."""
    results.make_runs(0)
    results.make_runs(1)
    results.gather()
    return results


def test_a_table_is_that_of_the_results_themselves(kept: Results):
    config = read(kept).config
    rows = list_table_rows(config, "table2")
    runs = {run for row in rows for run in row.runs}
    reference = read_reference(REFERENCE)
    expected = accuracy_table(collect(runs, kept.root), config.tables["table2"], reference, rows)
    assert read(kept).make_table("table2").equals(expected)
    assert expected["nf_acc_seeds"].dropna().tolist() == [2, 2]
    assert "2 of 2 seeds" in expected["status"].tolist()[-1]


def test_all_is_written_without_the_results(kept: Results, tmp_path):
    shutil.rmtree(kept.root)
    read(kept).write(tmp_path / "out")
    names = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    tables = {f"tables/table2.{suffix}" for suffix in ("csv", "md", "tex", "html")}
    figures = {f"figures/accuracy_against_weight.{suffix}" for suffix in ("png", "pdf")}
    assert names == tables | figures


def test_runs_that_are_not_made_are_missing_in_the_table(results: Results):
    results.make_runs(0, without=(1e4,))
    results.make_runs(1, without=(0,))
    results.gather()
    table = read(results).make_table("table2")
    assert table["nf_acc_seeds"].fillna(0).tolist() == [1, 1, 0]
    shutil.rmtree(results.evidence)
    shutil.rmtree(results.root)
    results.make_runs(0, without=(1e4,))
    results.gather()
    assert read(results).make_table("table2")["status"].tolist()[1] == "missing"


@pytest.fixture
def one_seed(results: Results) -> Results:
    """Evidence of one seed, with predictions."""
    results.make_runs(0)
    results.gather()
    return results


@pytest.mark.parametrize("name", ["runs.csv", "settings.json", "predictions.npz"])
def test_a_file_that_is_damaged_or_gone_is_named(one_seed: Results, name):
    path = one_seed.evidence / name
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(EvidenceError, match=name):
        read(one_seed)
    path.unlink()
    with pytest.raises(EvidenceError, match=name):
        read(one_seed)


@pytest.mark.parametrize("name", ["runs.csv", "predictions.npz"])
def test_truncated_files_are_refused_even_if_their_checksum_is_right(one_seed: Results, name):
    path = one_seed.evidence / name
    path.write_bytes(path.read_bytes()[:-30])
    record_checksum(one_seed.evidence, name)
    with pytest.raises(ValueError, match=name):
        read(one_seed)


@pytest.mark.parametrize("name", ["runs.csv", "predictions.npz", "settings.json"])
def test_a_file_without_a_checksum_is_refused(one_seed: Results, name):
    sums = one_seed.evidence / "SHA256SUMS"
    sums.write_text("".join(line for line in sums.read_text().splitlines(True) if not line.endswith(f"  {name}\n")))
    with pytest.raises(EvidenceError, match=name):
        read(one_seed)


@pytest.mark.parametrize(
    "change",
    [
        ("nf_acc,85.0", "nf_acc,"),
        ("nf_acc,85.0", "nf_acc,nan"),
        ("animals,mef,fpi,10000.0,0,,,nf_acc", "animals,mef,fpi,500.0,0,,,nf_acc"),
        ("animals,mef,fpi,10000.0,0,,,,", "animals,mef,,10000.0,0,,,,"),
    ],
)
def test_a_row_that_belongs_to_no_run_is_refused_even_if_the_checksum_is_right(one_seed: Results, change):
    edit_runs(one_seed.evidence, *change)
    with pytest.raises(ValueError, match=r"runs\.csv"):
        read(one_seed)


@pytest.mark.parametrize(
    ("change", "expected"), [({"format": 9}, "format 1"), ({"settings": {"seeds": [0], "colour": 1}}, "colour")]
)
def test_settings_of_another_version_are_refused(kept: Results, change, expected):
    path = kept.evidence / "settings.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    record_checksum(kept.evidence, "settings.json")
    with pytest.raises(FormatError, match=expected):
        read(kept)


def test_the_extensions_that_settings_need_are_named(results: Results):
    results.stored = StoredSettings("mine", results.stored.config, ("mine.py",))
    results.make_runs(0)
    results.gather()
    path = results.evidence / "settings.json"
    text = json.loads(results.stored.to_text())
    text["settings"]["priors"]["fpi"] = {"method": "of_mine"}
    path.write_text(json.dumps(text))
    record_checksum(results.evidence, "settings.json")
    with pytest.raises(FormatError, match=r"of_mine.*mine\.py"):
        read(results)


def test_the_commands_keep_and_rebuild(results: Results, tmp_path, capsys):
    results.make_runs(0)
    (results.root / "settings.json").write_text(results.stored.to_text())
    command = ["evidence", str(results.root), "--output", str(results.evidence)]
    assert main(command) == 1
    assert "--with-other-settings" in capsys.readouterr().err
    assert main([*command, "--with-other-settings"]) == 0
    document = tmp_path / "README.md"
    document.write_text("# Mine\n\n<!-- evidence: mine/table2 -->\n<!-- end -->\n")
    command = ["tables", str(results.evidence.parent), "--output", str(tmp_path / "out"), "--update", str(document)]
    assert main(command) == 0
    assert (tmp_path / "out/mine/tables/table2.md").read_text() in document.read_text()
    assert main(["tables", str(results.evidence)]) == 1


def test_the_mismatch_is_drawn_over_all_presets_that_have_the_figure(results: Results, tmp_path):
    """Of two, since of one it is in the folder of its preset."""
    config = CONFIG | {"figures": {"following": {"table": "table2"}}}
    results.stored = StoredSettings.of("mine", Config.model_validate(config))
    results.make_runs(0, without=(1e9,))
    for item in find_runs(results.root):
        if item.run.classifier is None:
            record = {**item.record, "metrics": item.metrics | {"mismatch": 0.5}}
            (item.folder / "metrics.json").write_text(json.dumps(record))
    results.gather()
    evidence, out = results.evidence.parent, tmp_path / "out"
    assert main(["tables", str(evidence), "--output", str(out)]) == 0
    assert not (out / "following.png").exists()
    results.evidence = evidence / "other"
    results.gather()
    assert main(["tables", str(evidence), "--output", str(out)]) == 0
    names = ["following.png", "mine/figures/following.png", "other/figures/following.png"]
    assert all((out / name).is_file() for name in names)


def test_a_block_of_a_preset_without_a_folder_is_refused_before_anything_is_written(results: Results, tmp_path, capsys):
    results.make_runs(0)
    results.gather()
    folder = results.evidence.rename(tmp_path / "ev")
    document = tmp_path / "README.md"
    document.write_text("<!-- evidence: mine/table2 -->\n<!-- end -->\n")
    assert main(["tables", str(folder), "--output", str(tmp_path / "out"), "--update", str(document)]) == 1
    assert f"{folder}: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
