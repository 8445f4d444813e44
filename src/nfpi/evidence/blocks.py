"""Blocks of Markdown files that are generated from evidence.

A block begins with `<!-- evidence: PRESET/TABLE -->` and ends with `<!-- end -->`. TABLE is a table of the preset or
`claims`. For tables, `TABLE short` leaves out title, notes, intervals, validation values and the paper's values.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nfpi.evidence.checksums import EvidenceError
from nfpi.evidence.rebuilding import RebuiltResults
from nfpi.results.claims.layout import NAME as CLAIMS
from nfpi.results.claims.layout import claims_to_markdown
from nfpi.results.tables.layout import to_markdown, to_short_markdown

_BEGIN = re.compile(r"<!-- evidence: *(\S+?)( short)? *-->")
_ANY_BEGIN = re.compile(r"<!-- *evidence\b")
_END = re.compile(r"<!-- *end *-->")


@dataclass(frozen=True)
class Block:
    """A block of a file.

    Attributes:
        path: the file.
        begin, end: indices of the lines with the comments.
        name: PRESET/TABLE.
        is_short: whether it is the short form.
        text: text between the comments.
    """

    path: Path
    begin: int
    end: int
    name: str
    is_short: bool
    text: str


def find_blocks(path: Path) -> list[Block]:
    """Find the blocks of a Markdown file, ignoring code that is fenced by backticks at the start of a line.

    Raises:
        EvidenceError: a block does not end, or its comment is ill-formed.
        OSError: the file cannot be read.
    """
    lines, blocks, begin, is_code = path.read_text(encoding="utf-8").splitlines(), [], -1, False
    for index, line in enumerate(lines):
        if line.startswith("```"):
            is_code = not is_code
        if is_code:
            continue
        if _ANY_BEGIN.match(line.strip()):
            if begin >= 0:
                expected = f"<!-- end --> of the block that begins at line {begin + 1}"
                raise EvidenceError(f"{path}:{index + 1}: expected {expected}, received {line.strip()}")
            if _BEGIN.fullmatch(line.strip()) is None:
                expected = "<!-- evidence: PRESET/TABLE --> or <!-- evidence: PRESET/TABLE short -->, with <!-- end -->"
                raise EvidenceError(f"{path}:{index + 1}: expected {expected}, received {line.strip()}")
            begin = index
        elif begin >= 0 and _END.fullmatch(line.strip()):
            match = _BEGIN.fullmatch(lines[begin].strip())
            assert match is not None
            text = "\n".join(lines[begin + 1 : index]).strip("\n")
            blocks.append(Block(path, begin, index, match[1], bool(match[2]), text))
            begin = -1
    if begin >= 0:
        raise EvidenceError(f"{path}:{begin + 1}: expected <!-- end --> after {lines[begin].strip()}, received none")
    return blocks


def render_block(block: Block, read: Callable[[str], RebuiltResults]) -> str:
    """Generate the text of a block from the evidence.

    Args:
        block: the block.
        read: function that reads the evidence of a preset.

    Raises:
        EvidenceError: unknown table, or claims of a preset without claims.
    """
    preset, _, name = block.name.partition("/")
    evidence = read(preset)
    tables = evidence.config.tables
    has_claims = bool(evidence.config.claims) and not block.is_short
    if name == CLAIMS and has_claims:
        return claims_to_markdown(evidence.judge_claims()).strip("\n")
    if name not in tables:
        known = ", ".join([*tables, *([CLAIMS] if has_claims else [])])
        where = f"{block.path}:{block.begin + 1}"
        raise EvidenceError(f"{where}: expected a table of the evidence of {preset} ({known}), received '{name}'")
    frame = evidence.make_table(name)
    return (to_short_markdown(frame) if block.is_short else to_markdown(frame, tables[name].title)).strip("\n")


def find_outdated_blocks(path: Path, read: Callable[[str], RebuiltResults]) -> list[tuple[Block, str]]:
    """Return the outdated blocks of a file, each with the text that should replace its own."""
    rendered = [(block, render_block(block, read)) for block in find_blocks(path)]
    return [(block, text) for block, text in rendered if block.text != text]


def fill_blocks(path: Path, read: Callable[[str], RebuiltResults]) -> tuple[str, int]:
    """Return the contents of a file with all blocks updated, and the number of outdated blocks."""
    lines = path.read_text(encoding="utf-8").splitlines()
    outdated = find_outdated_blocks(path, read)
    for block, text in reversed(outdated):
        lines[block.begin + 1 : block.end] = ["", *text.splitlines(), ""]
    return "\n".join(lines) + "\n", len(outdated)
