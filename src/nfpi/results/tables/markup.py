"""Tables of texts, in Markdown, LaTeX and HTML, and their files."""

from __future__ import annotations

import functools
import html
import os
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from pylatexenc.latexencode import RULE_DICT, UnicodeToLatexConversionRule, UnicodeToLatexEncoder

from nfpi.results.recorded.csv_files import write_csv
from nfpi.runtime.files import write_atomically, written_together

_INTERVAL = re.compile(r" (\[[^]]*\])")
"""An interval in the cell of a number."""


@dataclass(frozen=True)
class Column:
    """A column of cells, as plain Unicode text.

    Attributes:
        heading: heading; within a group, for example `ours`, `paper` or `difference`.
        cells: one cell per row; empty if unknown.
        keys: sort keys, one per row, numbers or text; None if unknown.
        is_numeric: whether the cells are numbers, in which brackets are intervals.
        group: heading shared by this and neighbouring columns, such as a metric; empty: no group.
        unit: unit in parentheses, and the arrow of the better direction.
        is_worse: whether HTML shows each cell in grey; empty: none.
    """

    heading: str
    cells: Sequence[str]
    keys: Sequence[float | str | None] = field(repr=False)
    is_numeric: bool = False
    group: str = ""
    unit: str = ""
    is_worse: Sequence[bool] = ()

    @property
    def name(self) -> str:
        """Group or heading, with the unit."""
        return " ".join(filter(None, [self.group or self.heading, self.unit]))


@dataclass(frozen=True)
class TextTable:
    """Columns, rows in bold and notes; columns without any text are left out.

    Attributes:
        columns: the columns.
        best: for each row, whether it is in bold, such as the best of several λ.
        notes: sentences that explain the table.
    """

    columns: Sequence[Column]
    best: Sequence[bool]
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", [column for column in self.columns if any(column.cells)])

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The cells of each row."""
        return list(zip(*(column.cells for column in self.columns), strict=True))

    @property
    def groups(self) -> list[list[Column]]:
        """Columns by group; a column without a group forms its own."""
        groups: list[list[Column]] = []
        for column in self.columns:
            if column.group and groups and groups[-1][0].name == column.name:
                groups[-1].append(column)
            else:
                groups.append([column])
        return groups

    @property
    def is_grouped(self) -> bool:
        """Whether a group has several columns, so that there are two lines of headings."""
        return any(len(columns) > 1 for columns in self.groups)


def make_text_column(heading: str, values: Iterable[object]) -> Column:
    """Make a column of texts; None is an empty cell."""
    cells = ["" if value is None else str(value) for value in values]
    return Column(heading, cells, [cell or None for cell in cells])


def make_number_column(
    heading: str,
    values: Iterable[Any],
    form: Callable[[float], str] | Iterable[str],
    *,
    group: str = "",
    unit: str = "",
    arrow: str = "",
    is_worse: Sequence[bool] = (),
) -> Column:
    """Make a column of numbers; None and NaN are empty cells.

    Args:
        heading: heading.
        values: numbers, by which HTML sorts.
        form: function that formats a number, or the cells themselves.
        group: group of the column.
        unit: unit, without parentheses.
        arrow: `↑` or `↓`, the better direction.
        is_worse: whether HTML shows each cell in grey.
    """
    keys = [None if value is None or value != value else float(value) for value in values]
    cells = ["" if key is None else form(key) for key in keys] if callable(form) else list(form)
    unit = " ".join(filter(None, [f"({unit})" if unit else "", arrow]))
    return Column(heading, cells, keys, is_numeric=True, group=group, unit=unit, is_worse=is_worse)


# ---- Markdown -----------------------------------------------------------------------------------------------


def _table_to_markdown(table: TextTable) -> str:
    """Return the grid of a table as GitHub Markdown, with the best rows in bold."""
    lines = [[_escape_cell(_compose_heading(column)) for column in table.columns]]
    lines.append(["---:" if column.is_numeric else ":---" for column in table.columns])
    for cells, best in zip(table.rows, table.best, strict=True):
        texts = [
            _escape_cell(cell) if column.is_numeric else escape_markdown(cell)
            for column, cell in zip(table.columns, cells, strict=True)
        ]
        lines.append([f"**{text}**" if best and text else text for text in texts])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def escape_markdown(text: str, special: str = r"\\|*`\[\]") -> str:
    """Escape text; line breaks, which would end the row of a table, become spaces."""
    escaped = re.sub(rf"([{special}]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", " ".join(text.splitlines()))
    # GitHub knows the escape \<, Python-Markdown (the docs' site) does not
    return re.sub(r"&(?=#?\w+;)", "&amp;", escaped).replace("<", "&lt;")


_escape_cell = functools.partial(escape_markdown, special=r"\\|*`")
"""Escapes text in which brackets are those of intervals."""


def _compose_heading(column: Column) -> str:
    """Return e.g. `NF-Acc (%)` for our values, `NF-Acc, paper` for the others."""
    return column.name if column.heading in ("ours", "") or not column.group else f"{column.group}, {column.heading}"


def tables_to_markdown(tables: Sequence[tuple[str, TextTable]]) -> str:
    """Return tables as a Markdown document, each below its title and above its notes."""
    parts: list[str] = []
    for title, table in tables:
        heading = escape_markdown(" ".join(title.split()))
        notes = " ".join(map(_escape_cell, table.notes))
        parts += [f"**{heading}**" if heading else "", _table_to_markdown(table), notes]
    return "\n\n".join(filter(None, parts)) + "\n"


# ---- LaTeX --------------------------------------------------------------------------------------------------

_LONG = 40
"""Number of letters above which the texts of a column are broken into lines."""

_COMMANDS = dict(zip("ĄąĘęĮįŲųÐðĐđŊŋÞþ„‚‑", (*"AaEeIiUuDdDdNn", "Th", "th", ",,", ",", "-"), strict=True)) | {
    "«": r"\ensuremath{\ll}",
    "»": r"\ensuremath{\gg}",
    "∅": r"\ensuremath{\emptyset}",
    "ŉ": "'n",
    **{letter: rf"\ensuremath{{^{power}}}" for power, letter in enumerate("¹²³", 1)},
    "·": r"\ensuremath{\cdot}",
    "†": r"{\dag}",
    "↑": r"\ensuremath{\uparrow}",
    "↓": r"\ensuremath{\downarrow}",
}
"""Replacements of characters that the font encoding OT1 lacks, or whose commands need a package."""

_encoder = UnicodeToLatexEncoder(
    conversion_rules=[
        UnicodeToLatexConversionRule(RULE_DICT, {ord(letter): text for letter, text in _COMMANDS.items()}),
        "defaults",
    ],
    unknown_char_policy="unihex",
    unknown_char_warning=False,
)


def escape_latex(text: str) -> str:
    """Convert text to LaTeX in ASCII; characters without a LaTeX command are written as their code points."""
    return str(_encoder.unicode_to_latex(text))


def tables_to_latex(tables: Sequence[tuple[str, TextTable]]) -> str:
    r"""Return tables as LaTeX for ``\input``, in ASCII, each with its title as a comment, and its notes below.

    The packages booktabs and graphicx are required. A table that is wider than the text is scaled down to its width.
    Intervals beside a standard deviation are left out.
    """
    return "\n\\bigskip\n\n".join(_table_to_latex(table, title) for title, table in tables)


def _table_to_latex(table: TextTable, title: str) -> str:
    # above: the label of a group or of a single column; below: the headings in the group, or the unit
    headings = [
        (column.name, column.heading) if len(columns) > 1 else (column.group or column.heading, column.unit)
        for columns in table.groups
        for column in columns
    ]
    encoded = [tuple(map(escape_latex, heading)) for heading in headings]
    frame = pd.DataFrame(dict(enumerate(_encode_cells(column, table.best) for column in table.columns)))
    has_two_lines = any(below for _, below in encoded)
    frame.columns = pd.MultiIndex.from_tuples(encoded) if has_two_lines else pd.Index([above for above, _ in encoded])
    alignment = "".join("r" if column.is_numeric else "l" for column in table.columns)
    style = frame.style.hide(axis="index")
    tabular = style.to_latex(hrules=True, column_format=f"@{{}}{alignment}@{{}}", multicol_align="c")
    if table.is_grouped:
        tabular = tabular.replace("\\\\\n", f"\\\\\n{_make_rules(table)}\n", 1)
    return "\n".join(
        [
            *(f"% {line}" for line in _wrap(title)),
            r"% Needs \usepackage{booktabs,graphicx}; at most as wide as the text. Intervals beside \pm are left out.",
            r"\begingroup\setlength{\tabcolsep}{3pt}\noindent%",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            tabular.rstrip() + r"}\endgroup",
            *(
                [r"\par\smallskip\noindent{\footnotesize", *_wrap(" ".join(table.notes)), r"\par}"]
                if table.notes
                else []
            ),
            "",
        ]
    )


def _encode_cells(column: Column, best: Sequence[bool]) -> list[str]:
    """Return the cells in LaTeX, those of the best rows in bold; long texts are broken into lines."""
    is_long = not column.is_numeric and max(map(len, column.cells)) > _LONG
    encoded = []
    for cell, is_best in zip(column.cells, best, strict=True):
        text = escape_latex(_INTERVAL.sub("", cell) if column.is_numeric and "±" in cell else cell)
        if is_best and text:
            text = rf"\textbf{{{text}}}"
        elif text.startswith(("[", "*")):  # which \\ at the end of the row before would read
            text = f"{{}}{text}"
        if is_long and text:
            text = rf"\parbox[t]{{0.35\linewidth}}{{\raggedright {text}\strut}}"
        encoded.append(text)
    return encoded


def _make_rules(table: TextTable) -> str:
    rules, first = [], 1
    for columns in table.groups:
        last = first + len(columns) - 1
        rules += [rf"\cmidrule(lr){{{first}-{last}}}"] if len(columns) > 1 else []
        first = last + 1
    return " ".join(rules)


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(escape_latex(text), 118, break_long_words=False, break_on_hyphens=False)


# ---- HTML ---------------------------------------------------------------------------------------------------


@functools.cache
def load_templates(package: str) -> Environment:
    """Load a Jinja environment that escapes all values, with the templates of a package and those of tables."""
    loader = ChoiceLoader([PackageLoader(package, "templates"), PackageLoader("nfpi.results.tables", "templates")])
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["mark_interval"] = _mark_interval
    return environment


def tables_to_html(tables: Sequence[tuple[str, TextTable]]) -> str:
    """Return tables as a self-contained HTML document with sortable columns, entitled like the first one."""
    tables = [(" ".join(title.split()), table) for title, table in tables]
    document = load_templates("nfpi.results.tables").get_template("document.html")
    return document.render(tables=[(title or "Results", table) for title, table in tables], title=tables[0][0])


def _mark_interval(cell: str) -> Markup:
    return Markup(_INTERVAL.sub(r' <span class="interval">\1</span>', html.escape(cell)))


# ---- files --------------------------------------------------------------------------------------------------


def write_tables(
    frame: pd.DataFrame,
    folder: str | os.PathLike[str],
    name: str,
    tables: Sequence[tuple[str, TextTable]],
    html_tables: Sequence[tuple[str, TextTable]] | None = None,
) -> None:
    """Write a frame as csv, and laid-out tables of it in the other formats, either all files or none.

    Args:
        frame: the frame.
        folder: folder of the files.
        name: name of the files, without suffix.
        tables: titles and laid-out tables.
        html_tables: those of the HTML file; None: the same.
    """
    html_text = tables_to_html(html_tables or tables)
    texts = {"md": tables_to_markdown(tables), "tex": tables_to_latex(tables), "html": html_text}
    with written_together():
        write_csv(frame, Path(folder) / f"{name}.csv")
        for suffix, text in texts.items():
            write_atomically(Path(folder) / f"{name}.{suffix}", text)
