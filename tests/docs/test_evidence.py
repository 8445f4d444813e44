"""What README.md and docs/ print of the runs is what the committed evidence says.

`nfpi tables docs/evidence --update FILE` fills the blocks in.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pandas as pd
import pytest
import torch

from nfpi.evidence.rebuilding import BLOCK, RebuiltResults, fill_blocks, find_evidence
from nfpi.results.metrics import compute_metrics
from nfpi.results.recorded.csv_files import write_csv
from nfpi.results.statistics.significance import Comparison, paired_t
from nfpi.results.tables.rows import list_table_rows
from nfpi.results.tables.summaries import measure_row

ROOT = Path(__file__).parents[2]
EVIDENCE, TABLES = ROOT / "docs/evidence", ROOT / "docs/tables"
REMAKE = "nfpi tables docs/evidence --output docs/tables --update docs/tables.md"
FILES = [path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if BLOCK.search(path.read_text())]
FASHION, CIFAR = "fashion_mnist_small", "cifar10_small"
FOLDERS = find_evidence(EVIDENCE) if EVIDENCE.is_dir() else []


@functools.cache
def read(preset: str) -> RebuiltResults:
    return RebuiltResults.read(EVIDENCE / preset)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_document_prints_what_the_evidence_says(path: Path):
    text = path.read_text(encoding="utf-8")
    filled, blocks = fill_blocks(text, read)
    assert filled == text, f"nfpi tables docs/evidence --update {path.relative_to(ROOT)}"
    assert blocks == text.count("\n<!-- evidence: ")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_csv_files_have_the_values_of_the_evidence(folder: Path, tmp_path: Path):
    """Up to the last digits, in which machines differ."""
    evidence, kept = read(folder.name), TABLES / folder.name
    assert evidence.runs
    made = {f"tables/{name}.csv": evidence.make_table(name) for name in evidence.config.tables}
    if evidence.config.claims:
        made["claims.csv"] = evidence.judge_claims()
    assert {path.relative_to(kept).as_posix() for path in kept.rglob("*.csv")} == set(made), REMAKE
    for name, frame in made.items():
        write_csv(frame, tmp_path / "made.csv")
        pd.testing.assert_frame_equal(pd.read_csv(kept / name), pd.read_csv(tmp_path / "made.csv"), obj=name)


def test_tables_links_to_every_csv_file():
    links = re.findall(r"\]\((tables/\S+\.csv)\)", (ROOT / "docs/tables.md").read_text(encoding="utf-8"))
    files = {path.relative_to(ROOT / "docs").as_posix() for path in TABLES.rglob("*.csv")}
    assert set(links) == files


def read_table_of_readme() -> pd.DataFrame:
    """The cells of the table of results, by the beginning of row and column."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    begin = next(index for index, line in enumerate(lines) if line.startswith("| repulsion of |"))
    end = lines.index("", begin)
    heading, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[begin:end])
    return pd.DataFrame(rows, columns=heading).set_index("repulsion of")


def test_readme_compares_table_3_with_the_paper():
    printed = read_table_of_readme().iloc[:4]
    assert list(printed.index) == ["nothing (λ = 0)", "means", "covariances", "means and covariances"]
    paper = pd.read_csv(ROOT / "workflow/reference/paper.csv").query("table == 'table3' and metric == 'nf_acc'")
    of_cifar10 = paper[paper["dataset"] == "cifar10"].sort_values("row")
    assert list(printed.filter(like="paper: CIFAR-10").squeeze()) == [f"{value:g}" for value in of_cifar10["value"]]
    for name, preset in {"CIFAR-10, 5000": CIFAR, "Fashion-MNIST, 5000": FASHION, "digits": "digits"}.items():
        ours = read(preset).make_table("table3").sort_values("row")
        assert list(printed.filter(like=f"ours: {name}").squeeze()) == [f"{value:.1f}" for value in ours["nf_acc"]]


def test_readme_has_the_runs_on_all_images():
    table = read("fashion_mnist").make_table("table2")
    trained = table[table["row"] == "as trained"].set_index("lambda")["nf_acc"]
    [qda] = table.loc[table["row"].str.contains("QDA"), "top1"]
    printed = read_table_of_readme().filter(like="Fashion-MNIST, 57 000").squeeze()
    expected = ["", "", "", "", "", "", ""]
    expected[0], expected[3], expected[5] = (f"{value:.1f}" for value in (trained[0], trained[3e4], qda))
    assert list(printed) == expected


def values(preset: str, table: str, row: str, weight: float, metric: str) -> dict[int, float]:
    """Return the values of a metric by seed."""
    evidence = read(preset)
    rows = list_table_rows(evidence.config, table)
    [found] = [each for each in rows if each.label == row and each.weight == weight]
    return dict(measure_row(evidence.metrics, found, [metric], None).summaries[metric].values)


def gain(preset: str, table: str, row: str, weight: float, metric: str = "nf_acc") -> Comparison:
    """Test a row against its λ = 0."""
    return paired_t(values(preset, table, row, weight, metric), values(preset, table, row, 0, metric))


def write_interval(of: Comparison) -> str:
    return f"{of.difference:.1f} [{of.low:.1f}, {of.high:.1f}]".replace("-", "−")


def write_results() -> list[str]:
    """Write the parts of the report's summary that have numbers of runs."""
    cnn = [gain(preset, "table2", "NFπ", 1e4, "cnn_acc").difference for preset in (FASHION, CIFAR)]
    fall = -gain(CIFAR, "table2", "NFπ", 3e5, "cnn_acc").difference
    refitted = gain(f"{CIFAR}_following", "table9", "refitted", 3e5, "cnn_acc")

    f_remains, f_all = (gain(f"{FASHION}_following", "table9", row, 3e4) for row in ("refitted", "as trained"))
    c_remains, c_all = (gain(f"{CIFAR}_following", "table9", row, 3e5) for row in ("refitted", "as trained"))
    l_remains, l_all = (gain("cifar10_length", "table12", row, 3e5) for row in ("50 epochs, refitted", "50 epochs"))
    cnn_remains, cnn_all = (
        gain(f"{FASHION}_following", "table9", row, 1e4, "cnn_acc") for row in ("refitted", "as trained")
    )
    assert c_remains.p_value > 0.05
    assert cnn_remains.p_value > 0.05

    above = []
    for preset in ("digits", FASHION, CIFAR):
        verdicts = read(preset).judge_claims().query("claim == 'gradient_descent'")
        significant = int((verdicts["p_adjusted"] < 0.05).sum())
        differences = verdicts["difference"]
        above.append((f"{differences.min():.1f} to {differences.max():.1f}", significant))
    assert [significant for _, significant in above] == [0, 4, 1]
    return [
        f"by {above[0][0]} points on digits (n.s.: not significant), by {above[1][0]} on Fashion-MNIST, and by "
        f"{above[2][0]} on CIFAR-10",
        f"{cnn[0]:.1f} points on Fashion-MNIST (four seeds) and {cnn[1]:.1f} on CIFAR-10",
        f"the gain is {cnn_all.difference:.1f} as trained and {cnn_remains.difference:.1f} (n.s.)",
        f"ours lose {fall:.1f} after 12 epochs",
        f"to {write_interval(refitted)} above that of a refitted λ = 0",
        f"{f_remains.difference:.1f} of {f_all.difference:.1f} points remain on Fashion-MNIST, and on CIFAR-10 after "
        f"12 epochs {c_remains.difference:.1f} of {c_all.difference:.1f}, which is not significant",
        f"{l_remains.difference:.1f} of {l_all.difference:.1f} points remain on CIFAR-10",
    ]


def test_the_summary_of_the_report_has_the_numbers_of_the_evidence():
    text = (ROOT / "docs/replication.md").read_text(encoding="utf-8")
    summary = text.partition("## Summary")[2].partition("\n## ")[0]
    for sentence in write_results():
        assert sentence in summary


def test_readme_has_numbers_of_runs_in_its_table_only():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.partition("## Does the paper replicate?")[2].partition("\n## ")[0]
    assert not re.findall(r"\d+\.\d+", "\n".join(line for line in section.splitlines() if not line.startswith("|")))


@pytest.mark.parametrize(
    ("beginning", "name", "label", "metric"),
    [
        ("nothing, means learned", "table4", "means by gradient, Σ = I, γ = 10", "nf_acc"),
        ("no flow: [Gaussians", "table2", "Gaussians of the pixels (QDA)", "top1"),
        ("no flow: ResNet18", "table2", "ResNet18 on the images", "top1"),
    ],
)
def test_readme_prints_what_needs_no_repulsion(beginning, name, label, metric):
    printed = read_table_of_readme().filter(like=beginning, axis="index").squeeze()
    for column, preset in {"CIFAR-10, 5000": CIFAR, "Fashion-MNIST, 5000": FASHION, "digits": "digits"}.items():
        table = read(preset).make_table(name)
        expected = table.loc[table["row"] == label, metric].item()
        assert printed.filter(like=f"ours: {column}").item() == f"{expected:.1f}"


@pytest.mark.parametrize("preset", ["digits_following", "fashion_mnist_small_following"])
def test_probabilities_in_the_evidence_give_the_metrics_of_table_11(preset):
    """Where they were kept: of the classifiers that need no flow."""
    evidence = read(preset)
    recorded = {item.run: item.record.get("metrics", {}) for item in evidence.runs}
    kept = {run: found for run, found in evidence.predictions.items() if found.class_log_prob.size}
    assert {run.classifier for run in kept} >= {"lda", "qda"}
    for run, found in kept.items():
        log_prob, labels = torch.tensor(found.class_log_prob), torch.tensor(found.label)
        metrics = compute_metrics(["ece", "brier", "nll"], log_prob, labels)
        assert metrics == pytest.approx({name: recorded[run][name] for name in metrics}, rel=2e-3, abs=2e-3)
