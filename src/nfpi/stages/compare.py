"""The command that compares two folders of results."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic_settings import CliPositionalArg

from nfpi.results.differences import Differences, compare_results
from nfpi.stages.base import Command

_BOTH = ("first", "second")


class Compare(Command):
    """Print the differences between two folders of results.

    Compares settings, versions, numbers and runs. Prints tables on a terminal, else tab-separated lines.
    """

    command = "compare"

    first: CliPositionalArg[Path]
    """results/{preset}"""
    second: CliPositionalArg[Path]
    """folder results/{preset} that `first` is compared with"""
    times: bool = False
    """also compare metrics in hours and seconds, which differ whenever they are measured again"""

    def run(self) -> None:
        """Print the differences, as tables on a terminal and as tab-separated lines otherwise."""
        found = compare_results(self.first, self.second, times=self.times)
        sections = (
            ("Settings", ["setting", *_BOTH, "runs"], found.settings),
            ("Software and machines", ["name", *_BOTH, "runs"], found.software),
            ("Numbers", ["run", "metric", *_BOTH, "difference"], found.numbers),
            ("Runs", ["run", *_BOTH], found.runs),
        )
        print(f"first: {self.first}\nsecond: {self.second}\n")
        print_section = _print_table if sys.stdout.isatty() else _print_lines
        for title, heading, rows in sections:
            if rows:
                print_section(title, heading, rows)
        print(_summarize(found))


def _summarize(found: Differences) -> str:
    runs = f"{found.common} {'run is' if found.common == 1 else 'runs are'} in both"
    if not (found.settings or found.software or found.numbers or found.runs):
        return f"{runs}; nothing differs"
    counts = (("setting", found.settings), ("number", found.numbers))
    differ = ", ".join(_describe_count(len(rows), what) for what, rows in counts)
    return f"{runs}; {differ}" if found.common else runs


def _describe_count(n: int, what: str) -> str:
    if not n:
        return f"all {what}s are the same"
    return f"1 {what} differs" if n == 1 else f"{n} {what}s differ"


def _print_table(title: str, heading: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(heading):
        table.add_column(name, justify="right" if title == "Numbers" and index > 1 else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    # brackets in names are not markup
    Console(markup=False, highlight=False).print(table)


def _print_lines(title: str, heading: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print(f"# {title}")
    for row in [heading, *rows]:
        print("\t".join(row))
