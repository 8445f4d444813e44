"""What README.md and docs/ print of the runs is what the committed evidence says.

`nfpi tables docs/evidence --update FILE` fills the blocks in.
"""

from __future__ import annotations

import functools
from pathlib import Path

import pandas as pd
import pytest

from nfpi.evidence.rebuilding import BLOCK, RebuiltResults, fill_blocks, find_evidence, find_reference

ROOT = Path(__file__).parents[2]
EVIDENCE = ROOT / "docs/evidence"
FILES = [path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if BLOCK.search(path.read_text())]
FOLDERS = find_evidence(EVIDENCE) if EVIDENCE.is_dir() else []


@functools.cache
def read(preset: str) -> RebuiltResults:
    return RebuiltResults.read(EVIDENCE / preset, find_reference())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_document_prints_what_the_evidence_says(path: Path):
    text = path.read_text(encoding="utf-8")
    filled, blocks = fill_blocks(text, read)
    assert filled == text, f"nfpi tables docs/evidence --update {path.relative_to(ROOT)}"
    assert blocks == text.count("\n<!-- evidence: ")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_all_tables_can_be_rebuilt_from_committed_evidence(folder: Path):
    evidence = read(folder.name)
    assert evidence.runs
    for name in evidence.config.tables:
        assert len(evidence.make_table(name))


def test_readme_compares_table_3_with_the_paper():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    begin = next(index for index, line in enumerate(lines) if line.startswith("| repulsion of |"))
    heading, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[begin : begin + 6])
    printed = {name: [row[index] for row in rows] for index, name in enumerate(heading)}
    expected = {"repulsion of": ["nothing (λ = 0)", "means", "covariances", "means and covariances"]}

    paper = pd.read_csv(ROOT / "workflow/reference/paper.csv").query("table == 'table3' and metric == 'nf_acc'")
    for name, dataset in {"CIFAR-10": "cifar10", "CIFAR-100": "cifar100"}.items():
        of_dataset = paper[paper["dataset"] == dataset].sort_values("row")
        expected[f"{name}, paper"] = [f"{value:g}" for value in of_dataset["value"]]
    for name, preset in {
        "CIFAR-10": "cifar10_small",
        "Fashion-MNIST": "fashion_mnist_small",
        "digits": "digits",
    }.items():
        ours = read(preset).make_table("table3").sort_values("row")
        expected[f"{name}, ours"] = [f"{value:.1f}" for value in ours["nf_acc"]]
    assert printed == expected
