"""Blocks of documents that print what evidence says."""

from __future__ import annotations

import pytest

from nfpi.evidence.keeping import EvidenceError
from nfpi.evidence.rebuilding import RebuiltResults, fill_blocks
from nfpi.results.tables.layout import to_markdown

from .conftest import Results

TEXT = """# Results

<!-- evidence: mine/table2 -->
| an old table |
<!-- end -->

Between.

<!-- evidence: mine/table2 -->

It has no end.
"""


@pytest.fixture
def rebuilt(results: Results) -> RebuiltResults:
    results.make_runs(0)
    results.make_runs(1)
    results.gather()
    return RebuiltResults.read(results.evidence)


def test_blocks_are_filled_in_and_stay_as_they_are_then(rebuilt):
    text, blocks = fill_blocks(TEXT, lambda _: rebuilt)
    assert blocks == 1
    assert fill_blocks(text, lambda _: rebuilt) == (text, 1)
    table = to_markdown(rebuilt.make_table("table2"), "Accuracy against λ").strip()
    assert text == TEXT.replace("| an old table |", f"\n{table}\n")


def test_a_number_that_is_changed_by_hand_is_made_right(rebuilt):
    text, _ = fill_blocks(TEXT, lambda _: rebuilt)
    assert fill_blocks(text.replace("85.5", "95.5", 1), lambda _: rebuilt) == (text, 1)


@pytest.mark.parametrize("name", ["claims", "table9"])
def test_a_block_of_no_table_is_refused(rebuilt, name):
    with pytest.raises(EvidenceError, match=rf"table2.*'{name}'"):
        fill_blocks(f"<!-- evidence: mine/{name} -->\n<!-- end -->\n", lambda _: rebuilt)
