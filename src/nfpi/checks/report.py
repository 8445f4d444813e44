"""Lines of a report, as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.text import Text

from nfpi.runtime.files import write_atomically

Verdict = Literal["ok", "slow", "missing", "FAILED"]
_STYLES: dict[Verdict, str] = {"ok": "green", "slow": "yellow", "missing": "cyan", "FAILED": "bold red"}


@dataclass(frozen=True)
class Line:
    """The result of a check.

    Attributes:
        check: what was checked.
        verdict: ok; slow: it works, and `text` says what to set; missing: data, weights or times that are not there,
            and `text` says which; FAILED: a training would fail, and `text` says what to do, if that is known.
        text: what was found, with its numbers.
    """

    check: str
    verdict: Verdict
    text: str


def print_line(line: Line) -> None:
    """Print a line on stdout, at once; in colour on a terminal."""
    console = Console(highlight=False, soft_wrap=True)
    words = Text(f"{line.verdict:8}", style=_STYLES[line.verdict])
    console.print(words + Text(f"{line.check}: {line.text}", style="none"))
    console.file.flush()


def write_report(path: Path, lines: Sequence[Line], about: dict[str, Any]) -> None:
    """Write the lines as JSON.

    Args:
        path: path of the file; its folder is created if necessary.
        lines: lines of the report.
        about: what was checked, and where.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {**about, "passed": not list_failed(lines), "checks": [asdict(line) for line in lines]}
    write_atomically(path, json.dumps(content, ensure_ascii=False, indent=2) + "\n")


def list_failed(lines: Sequence[Line]) -> list[str]:
    """Return the names of the checks that failed."""
    return list(dict.fromkeys(line.check for line in lines if line.verdict == "FAILED"))
