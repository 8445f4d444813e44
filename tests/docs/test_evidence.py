"""What README.md and docs/ print of the runs is what the committed evidence says.

`nfpi tables docs/evidence --update FILE` fills the blocks in.
"""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from nfpi.evidence.blocks import find_blocks, find_outdated_blocks
from nfpi.evidence.rebuilding import RebuiltResults, find_evidence, find_reference

ROOT = Path(__file__).parents[2]
EVIDENCE = ROOT / "docs/evidence"
FILES = [path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if find_blocks(path)]
FOLDERS = find_evidence(EVIDENCE) if EVIDENCE.is_dir() else []


@functools.cache
def read(preset: str) -> RebuiltResults:
    return RebuiltResults.read(EVIDENCE / preset, find_reference(ROOT / "workflow/reference/paper.csv"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_document_prints_what_the_evidence_says(path: Path):
    outdated = [f"{path.name}:{block.begin + 1}: {block.name}" for block, _ in find_outdated_blocks(path, read)]
    assert not outdated, f"nfpi tables docs/evidence --update {path.relative_to(ROOT)}"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_all_tables_can_be_rebuilt_from_committed_evidence(folder: Path):
    evidence = read(folder.name)
    assert evidence.runs
    for name in evidence.config.tables:
        assert len(evidence.make_table(name))
