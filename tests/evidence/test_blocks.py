"""Blocks of documents that print what evidence says."""

from __future__ import annotations

from pathlib import Path

import pytest

from nfpi.evidence.keeping import EvidenceError
from nfpi.evidence.rebuilding import RebuiltResults, fill_blocks, find_blocks, find_outdated_blocks
from nfpi.results.tables.layout import to_markdown

from .conftest import Results

REFERENCE = Path(__file__).parents[2] / "workflow/reference/paper.csv"
TEXT = """# Results

<!-- evidence: mine/table2 -->
| an old table |
<!-- end -->

Between.

<!-- evidence: mine/table2 short -->
<!-- end -->

```markdown
<!-- evidence: PRESET/TABLE -->
```
"""


@pytest.fixture
def rebuilt(results: Results) -> RebuiltResults:
    results.make_runs(0)
    results.make_runs(1)
    results.gather()
    return RebuiltResults.read(results.evidence, REFERENCE)


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "README.md"
    path.write_text(TEXT)
    return path


def test_blocks_are_found_outside_of_code(document):
    blocks = find_blocks(document)
    assert [(block.name, block.is_short) for block in blocks] == [("mine/table2", False), ("mine/table2", True)]


def test_blocks_are_filled_in_and_are_not_outdated_then(document, rebuilt):
    assert len(find_outdated_blocks(document, lambda _: rebuilt)) == 2
    text, changed = fill_blocks(document, lambda _: rebuilt)
    document.write_text(text)
    assert changed == 2
    assert find_outdated_blocks(document, lambda _: rebuilt) == []
    assert fill_blocks(document, lambda _: rebuilt) == (text, 0)
    assert to_markdown(rebuilt.make_table("table2"), "Accuracy against λ").strip() in text
    assert "an old table" not in text
    assert "\nBetween.\n" in text
    assert text.endswith("```markdown\n<!-- evidence: PRESET/TABLE -->\n```\n")


def test_the_short_form_has_values_alone(document, rebuilt):
    text, _ = fill_blocks(document, lambda _: rebuilt)
    short = text.partition("table2 short -->")[2].partition("<!-- end -->")[0].strip().splitlines()
    assert short[3].replace("**", "").startswith("| 10⁴ | 85.5 ± 0.7 | 85.5 ± 0.7 |")
    assert "[" not in "".join(short)


def test_a_number_that_is_changed_by_hand_is_found(document, rebuilt):
    text, _ = fill_blocks(document, lambda _: rebuilt)
    document.write_text(text.replace("85.5", "95.5", 1))
    ((block, expected),) = find_outdated_blocks(document, lambda _: rebuilt)
    assert "95.5" in block.text
    assert "95.5" not in expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<!-- evidence: mine/table2 -->\n", r"README\.md:1"),
        (
            "<!-- evidence: mine/table2 -->\n<!-- evidence: mine/table2 short -->\n<!-- end -->\n",
            r"README\.md:2.*2",
        ),
        ("<!-- evidence: mine/claims -->\n<!-- end -->\n", r"README\.md:1.*'claims'"),
        ("<!-- evidence: mine/table9 -->\n<!-- end -->\n", r"README\.md:1.*'table9'"),
    ],
)
def test_a_block_that_is_ill_formed_is_named(document, rebuilt, text, expected):
    document.write_text(text)
    with pytest.raises(EvidenceError, match=expected):
        fill_blocks(document, lambda _: rebuilt)
