"""What README.md and docs/ print of the runs is what the committed evidence says.

`nfpi tables docs/evidence --update FILE` fills the blocks in.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from nfpi.evidence.rebuilding import BLOCK, RebuiltResults, fill_blocks, find_evidence
from nfpi.results.metrics import BINS, assign_bins, compute_metrics
from nfpi.results.recorded.csv_files import write_csv
from nfpi.results.statistics.significance import paired_t
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


def read_table(path: str, beginning: str, number: int = 0) -> pd.DataFrame:
    """Return the cells of the table of this number whose heading begins so; its first column is the index."""
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    begin = [index for index, line in enumerate(lines) if line.startswith(f"| {beginning}")][number]
    end = lines.index("", begin)
    heading, _, *rows = ([cell.strip() for cell in line[1:-1].split("|")] for line in lines[begin:end])
    return pd.DataFrame(rows, columns=heading).set_index(heading[0])


ALL_IMAGES = {"ours, CIFAR-10": ("cifar10", 3e5), "ours, Fashion-MNIST": ("fashion_mnist", 1e5)}
"""Columns of README's table with presets on all images, and the λ of the repulsion."""
RANDOM, MEANS = "random means, Σ = I, fixed", "means by gradient, Σ = I"
QDA, RESNET = "Gaussians of the pixels (QDA)", "ResNet18 on the images"
POSTERIOR, STRONGER_POSTERIOR = (f"{MEANS}, γ = {weight}" for weight in (10, 100))


def read_readme(column: str) -> pd.Series:
    return read_table("README.md", "Gaussians of the classes").filter(like=column).squeeze()


@pytest.mark.parametrize("column", ALL_IMAGES)
def test_readme_has_the_runs_on_all_images(column):
    """Of flows as trained → refitted."""
    preset, weight = ALL_IMAGES[column]
    table = read(preset).make_table("table2").astype({"lambda": float}).set_index(["row", "lambda"])
    flows = [
        ("as trained", "refitted", 0),
        *((way, f"{way}, refitted", 0) for way in (RANDOM, MEANS, POSTERIOR, STRONGER_POSTERIOR)),
    ]
    expected = []
    for *rows, of in [*flows, ("as trained", "refitted", weight)]:
        values = [table.loc[(row, of), "nf_acc"] for row in rows if (row, of) in table.index]
        expected.append(" → ".join(f"{value:.1f}" for value in values) or "not run")
    of_images = [f"{table.loc[row, 'top1'].item():.1f}" if row in table.index else "not run" for row in (QDA, RESNET)]
    assert list(read_readme(column)) == [*expected, *of_images]


def test_readme_has_the_runs_of_digits_and_the_paper():
    tables = {name: read("digits").make_table(name).set_index("row") for name in ("table2", "table3", "table4")}
    repelled = tables["table3"]["nf_acc"].sort_index()
    others = [tables["table4"]["nf_acc"][way] for way in (RANDOM, MEANS, POSTERIOR)]
    of_images = [tables["table2"]["top1"][way] for way in (QDA, RESNET)]
    flows, of_images = ([f"{value:.1f}" for value in values] for values in ([repelled.iloc[0], *others], of_images))
    assert list(read_readme("ours, digits")) == [*flows, "", f"{repelled.iloc[3]:.1f}", *of_images]
    paper = pd.read_csv(ROOT / "workflow/reference/paper.csv").query("table == 'table3' and metric == 'nf_acc'")
    of_cifar10 = paper[paper["dataset"] == "cifar10"].sort_values("row")["value"]
    assert list(read_readme("paper")) == [f"{of_cifar10.iloc[0]:g}", *4 * [""], f"{of_cifar10.iloc[3]:g}", "", ""]


def gain(preset: str, metric: str, weight: float, row: str) -> str:
    """Test a row of Table 9 against its λ = 0, and write the difference and its interval."""
    evidence, values = read(preset), []
    rows = {(each.label, each.weight): each for each in list_table_rows(evidence.config, "table9")}
    for each in (weight, 0):
        summary = measure_row(evidence.metrics, rows[row, each], [metric], None).summaries[metric]
        values.append(dict(summary.values))
    tested = paired_t(*values, split_ratio=rows[row, weight].split_ratio)
    return f"{tested.difference:.1f} [{tested.low:.1f}, {tested.high:.1f}]".replace("-", "−")


def test_the_report_has_the_gains_of_table_9():
    rows = [(FASHION, metric, weight) for metric in ("nf_acc", "cnn_acc") for weight in (3e4, 1e4)]
    rows = [("digits", "nf_acc", 1e4), *rows[:2], (CIFAR, "nf_acc", 3e5), *rows[2:], (CIFAR, "cnn_acc", 3e5)]
    expected = [[gain(f"{preset}_following", *of, row) for row in ("as trained", "refitted")] for preset, *of in rows]
    assert read_table("docs/replication.md", "gain at λ, of").to_numpy().tolist() == expected


@pytest.mark.parametrize(("column", "preset"), [("digits", "digits"), ("Fashion-MNIST", FASHION), ("CIFAR-10", CIFAR)])
def test_the_report_has_the_verdicts(column, preset):
    claims = pd.concat([read(preset).judge_claims(), read(f"{preset}_following").judge_claims()])
    expected = claims.sort_values("number").groupby("claim_verdict")["number"].unique().map(list)
    for verdict, cell in read_table("docs/replication.md", "verdict").filter(like=column).squeeze().items():
        numbers = re.sub(r"\([^)]*\)", "", re.sub(r"\[[^]]*\]\([^)]*\)", "", cell))
        assert [int(number) for number in re.findall(r"\d+", numbers)] == expected.get(verdict, []), verdict


WAYS = {
    "class means of the untrained flow, Σ = I": "class means, Σ = I",
    "means learned by gradient, Σ = I": MEANS,
    "the same with the posterior in the loss, γ = 10": POSTERIOR,
    "the same with γ = 100": STRONGER_POSTERIOR,
    "fixed random means, Σ = I": RANDOM,
}
"""Rows of the report's tables of all images, without repulsion, and those of the presets."""
WEIGHTS = {"0": 0.0, "10⁴": 1e4, "3·10⁴": 3e4, "10⁵": 1e5, "3·10⁵": 3e5}


def read_accuracy_and_density(preset: str) -> dict[str, pd.DataFrame]:
    """Return NF-Acc and bits/dim on all images by row and λ, as trained and refitted."""
    table = read(preset).make_table("table2").set_index("row")
    refitted = table.index.str.endswith("refitted")
    found = {
        "as trained": table[~refitted],
        "refitted": table[refitted].rename(lambda row: row.removesuffix(", refitted")),
    }
    return {
        column: part.rename({"as trained": "fpi", "refitted": "fpi"}).set_index("lambda", append=True)
        for column, part in found.items()
    }


@pytest.mark.parametrize(("number", "preset"), [(0, "fashion_mnist"), (1, "cifar10")])
def test_the_report_has_the_runs_on_all_images(number, preset):
    printed = read_table("docs/replication.md", "NF-Acc (%), bits/dim | as trained", number)
    for label, cells in printed.iterrows():
        weight, _, way = label.removeprefix("λ = ").partition(", ")
        of = (WAYS[way] if way else "fpi", WEIGHTS[weight])
        for column, table in read_accuracy_and_density(preset).items():
            assert cells[column] == f"{table.loc[of, 'nf_acc']:.1f}, {table.loc[of, 'bits_per_dim']:.2f}", (
                label,
                column,
            )


def interpolate_fpi(table: pd.DataFrame, row: str) -> str:
    """Return NF-Acc of FPI at the bits/dim of a row, less that of the row; linear between two λ."""
    fpi = table.loc["fpi"].sort_values("bits_per_dim")
    bits, accuracy = table.loc[(row, 0.0), ["bits_per_dim", "nf_acc"]].astype(float)
    if bits > fpi["bits_per_dim"].max():
        return "above all λ in bits/dim"
    found = np.interp(bits, fpi["bits_per_dim"].astype(float), fpi["nf_acc"].astype(float))
    return f"{found - accuracy:.1f}".replace("-", "−")


def test_the_report_has_the_differences_at_the_same_density_on_all_images():
    of_cifar10 = read_accuracy_and_density("cifar10")
    printed = read_table("docs/replication.md", "| as trained | refitted")
    expected = [
        [interpolate_fpi(table, row) for table in of_cifar10.values()]
        for row in (RANDOM, POSTERIOR, STRONGER_POSTERIOR)
    ]
    assert printed.to_numpy().tolist() == expected
    text = (ROOT / "docs/replication.md").read_text(encoding="utf-8")
    ahead = [
        interpolate_fpi(table, RANDOM).lstrip("−") for table in read_accuracy_and_density("fashion_mnist").values()
    ]
    assert f"random means are {ahead[0]} points above FPI, refitted {ahead[1]} (" in text


def write_difference(comparison: pd.Series) -> str:
    text = f"{comparison['difference']:.1f}".replace("-0.0", "0.0").replace("-", "−")
    significant = comparison["low"] > 0 or comparison["high"] < 0
    if pd.notna(comparison["p_adjusted"]):
        significant = comparison["p_adjusted"] < 0.05
    return text if significant else f"{text} (n.s.)"


@pytest.mark.parametrize(("column", "preset"), [("digits", "digits"), ("Fashion-MNIST", FASHION), ("CIFAR-10", CIFAR)])
def test_the_report_has_the_differences_of_claims_1_to_5(column, preset):
    claims = read(preset).judge_claims().query("number <= 5")
    assert list(read_table("docs/replication.md", "claim | of what")[column]) == [
        write_difference(comparison) for _, comparison in claims.iterrows()
    ]


@pytest.mark.parametrize(("column", "preset"), [("Fashion-MNIST", FASHION), ("CIFAR-10", CIFAR)])
def test_the_report_has_the_differences_at_the_same_density(column, preset):
    expected = []
    for _, comparison in read(preset).judge_claims().query("number >= 15").iterrows():
        difference, *significance = write_difference(comparison).split(" ")
        interval = f"[{comparison['low']:.1f}, {comparison['high']:.1f}]".replace("-0.0", "0.0").replace("-", "−")
        parts = [difference, interval, *significance] if pd.notna(comparison["low"]) else [difference]
        expected.append(" ".join(parts) if pd.notna(comparison["difference"]) else "")
    assert list(read_table("docs/replication.md", "NF-Acc of FPI at the same bits/dim")[column]) == expected


def test_readme_has_numbers_of_runs_in_its_table_only():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.partition("## Does the paper replicate?")[2].partition("\n## ")[0]
    assert not re.findall(r"\d+\.\d+", "\n".join(line for line in section.splitlines() if not line.startswith("|")))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_predictions_in_the_evidence_have_the_recorded_accuracy(folder: Path):
    evidence = read(folder.name)
    metrics = {item.run: item.record.get("metrics", {}) for item in evidence.runs}
    for run, found in evidence.predictions.items():
        name = next(name for name in ("nf_acc", "top1", "cnn_acc") if name in metrics[run])
        assert 100 * (found.label == found.predicted).mean() == pytest.approx(metrics[run][name]), run.folder


@pytest.mark.parametrize(
    ("folder", "runs"),
    [("digits_probabilities", 21), ("fashion_mnist_small_probabilities", 17), ("cifar10_small_probabilities", 7)],
)
def test_probabilities_in_the_evidence_give_the_metrics_of_table_11(folder, runs):
    """Of all rows; on Fashion-MNIST, a discriminant is one fit."""
    evidence = read(folder)
    recorded = {item.run: item.record.get("metrics", {}) for item in evidence.runs}
    kept = {run: found for run, found in evidence.predictions.items() if found.class_log_prob.size}
    assert len(kept) == runs
    for run, found in kept.items():
        log_prob, labels = torch.tensor(found.class_log_prob), torch.tensor(found.label)
        metrics = compute_metrics(["brier", "nll"], log_prob, labels)
        assert metrics == pytest.approx({name: recorded[run][name] for name in metrics}, rel=2e-3, abs=2e-3)
        gaps = np.bincount(assign_bins(found.confidence), found.is_correct - found.confidence)
        # log p is kept in float16, with an error of at most |log p| / 2^11: an image nearer than that to the edge of a
        # bin may have been in the next one, where its term of the sum is 1 / N at most
        log_confidence = np.log(found.confidence)[:, None]
        distance = abs(log_confidence - np.log(np.arange(1, BINS) / BINS))
        one_moved = (distance <= abs(log_confidence) / 2**11).any() * 100 * 2 / len(labels)
        assert 100 * abs(gaps).sum() / len(labels) == pytest.approx(recorded[run]["ece"], rel=0, abs=2e-4 + one_moved)
