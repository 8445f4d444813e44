r"""Tables in LaTeX, as ASCII text for ``\input`` that requires only the package booktabs."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pandas as pd
from pylatexenc.latexencode import RULE_DICT, UnicodeToLatexConversionRule, UnicodeToLatexEncoder

from nfpi.results.tables.layout import Column, Markup, Spread, Table, lay_out

TEXT_WIDTH = 345.0
"""Width of the text in a 10 pt article, in points; it scales with the font size of the document."""

_SIZES = {r"\normalsize": 1.0, r"\small": 0.925, r"\footnotesize": 0.85, r"\scriptsize": 0.8}
"""Font sizes of tables, largest first, with their relative widths of letters."""
_WIDTHS = (
    dict.fromkeys("ijl.,:;'!|[]", 2.8)
    | dict.fromkeys("frstI()/- ", 3.8)
    | dict.fromkeys("mwABCDEFGHJKLMNOPQRSTUVWXYZ%&", 7.5)
)
"""Widths of letters in Computer Modern at normal size, in points; 5 for digits and all others."""
_BOLD = 1.15
"""Relative width of a bold letter."""
_GAP = 3.0
r"""Half the space between columns, in points (``\tabcolsep``)."""
_LABEL_WIDTHS = (0.4, 0.3, 0.25, 0.2)
"""Maximum widths of a column of text, as shares of the text width; longer cells are broken into lines. The first with
which a table fits is used."""
_SIZE_OF_LAST_RESORT = (r"\tiny", 0.72)
"""A size, and the relative width of its letters, for tables that are too wide even if their metrics are split."""
_SAFE = 0.95
"""Share of the text width that each tabular of a split table may take, because widths are only estimated."""

_ABBREVIATIONS = {"difference": "diff."}
"""Abbreviated headings of columns in a group."""

_NOT_IN_OT1 = dict(zip("ĄąĘęĮįŲųÐðĐđŊŋÞþ„‚‑", (*"AaEeIiUuDdDdNn", "Th", "th", ",,", ",", "-"), strict=True)) | {
    "«": r"\ensuremath{\ll}",
    "»": r"\ensuremath{\gg}",
    "∅": r"\ensuremath{\emptyset}",
    "ŉ": "'n",
}
"""Replacements of characters that the font encoding OT1 lacks."""

_encoder = UnicodeToLatexEncoder(
    conversion_rules=[
        UnicodeToLatexConversionRule(RULE_DICT, {ord(letter): text for letter, text in _NOT_IN_OT1.items()}),
        "defaults",
    ],
    unknown_char_policy="unihex",
    unknown_char_warning=False,
)


def to_latex(frame: pd.DataFrame, title: str) -> str:
    r"""Return the table as LaTeX for ``\input``, in ASCII, at most as wide as the text.

    The font is the largest in which the table fits; if even the smallest is too wide, the metrics are split over
    several tabulars, one below the other, and labels are broken into more lines. The only required package is booktabs.

    Raises:
        TableError: a column is missing.
    """
    return table_to_latex(lay_out(frame, LATEX), title)


def table_to_latex(table: Table, title: str) -> str:
    """Return a laid-out table as LaTeX, see :func:`to_latex`."""
    size, panels, label_width = _fit_to_text_width(table)
    lines = [
        *_format_comments(title),
        *_format_comments(" ".join(table.notes)),
        r"% Needs \usepackage{booktabs} and no other package; at most as wide as the text of an article.",
        *(r"\begingroup", size, rf"\setlength{{\tabcolsep}}{{{_GAP:g}pt}}"),
    ]
    for index, panel in enumerate(panels):
        lines += [r"\par\medskip\noindent"] if index else []
        lines += _format_tabular(panel, label_width)
    return "\n".join([*lines, r"\endgroup"]) + "\n"


def escape(text: str) -> str:
    """Convert text to LaTeX in ASCII; characters without a LaTeX command are written as their code points."""
    return str(_encoder.unicode_to_latex(text))


# ---- widths ------------------------------------------------------------------------------------------------


def _fit_to_text_width(table: Table) -> tuple[str, list[Table], float]:
    """Choose the font size and the width of labels, and split the table into tabulars no wider than the text."""
    for size, factor in _SIZES.items():
        if _estimate_width(table, factor, _LABEL_WIDTHS[0]) <= TEXT_WIDTH:
            return size, [table], _LABEL_WIDTHS[0]
    for size, factor in (list(_SIZES.items())[-1], _SIZE_OF_LAST_RESORT):
        for label_width in _LABEL_WIDTHS:
            panels = _split_metrics(table, factor, label_width)
            if all(_estimate_width(panel, factor, label_width) <= _SAFE * TEXT_WIDTH for panel in panels):
                return size, panels, label_width
    return size, panels, label_width


def _split_metrics(table: Table, factor: float, label_width: float) -> list[Table]:
    """Split the metrics of a table over several tabulars, as few as their width permits."""
    run_columns = [column for column in table.columns if not column.group]
    panels: list[Table] = []
    for columns in table.groups:
        if not columns[0].group:
            continue
        if panels:
            wider = replace(panels[-1], columns=[*panels[-1].columns, *columns])
            if _estimate_width(wider, factor, label_width) <= _SAFE * TEXT_WIDTH:
                panels[-1] = wider
                continue
        panels.append(replace(table, columns=[*run_columns, *columns]))
    return panels or [table]


def _estimate_width(table: Table, factor: float, label_width: float) -> float:
    """Estimate the width of a tabular, in points."""
    total = 0.0
    for columns in table.groups:
        is_group = len(columns) > 1
        widths = [_estimate_column_width(column, is_group, factor, table.best, label_width) for column in columns]
        group_width = factor * _estimate_cell_width(columns[0].name) if is_group else 0.0
        total += max(sum(widths), group_width)
    return 1.04 * total + 2 * _GAP * (len(table.columns) - 1)


def _estimate_column_width(
    column: Column, is_in_group: bool, factor: float, best: Sequence[bool], label_width: float
) -> float:
    headings = [_ABBREVIATIONS.get(column.heading, column.heading)] if is_in_group else _format_headings(column)
    cells = [_estimate_cell_width(cell) * (_BOLD if bold else 1) for cell, bold in zip(column.cells, best, strict=True)]
    width = factor * max(*map(_estimate_cell_width, headings), *cells, 0.0)
    return min(width, label_width * TEXT_WIDTH) if _is_long(column, label_width) else width


def _estimate_cell_width(cell: str) -> float:
    """Estimate the width of a cell at normal size, in points."""
    value, _, interval = cell.partition(r"\(^{")
    above, behind = interval.partition("}")[0], interval.partition(r"\)")[2]
    return sum(_WIDTHS.get(letter, 5.0) for letter in _replace_commands(value + behind)) + 4.0 * len(above)


def _replace_commands(cell: str) -> str:
    """Return a cell with a wide letter for each command that prints a symbol."""
    text = re.sub(r"\\(textsuperscript|ensuremath|[()])", "", cell)
    return re.sub(r"[{}]", "", re.sub(r"\\([A-Za-z]+|.)", "m", text))


# ---- tabulars ----------------------------------------------------------------------------------------


def _format_tabular(table: Table, label_width: float) -> list[str]:
    alignments = "".join(_choose_alignment(column, label_width) for column in table.columns)
    lines = [rf"\begin{{tabular}}{{@{{}}{alignments}@{{}}}}", r"\toprule"]
    lines += _format_header(table)
    lines.append(r"\midrule")
    for cells, best in zip(table.rows, table.best, strict=True):
        row = [rf"\textbf{{{cell}}}" if best and cell else cell for cell in cells]
        row = [_allow_line_breaks(column, cell, label_width) for column, cell in zip(table.columns, row, strict=True)]
        lines.append(_join_cells(row) + r" \tabularnewline")  # \raggedright gives \\ another meaning
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _format_header(table: Table) -> list[str]:
    """Return the lines of the header: labels of metrics above, and units or the headings of columns, if any, below."""
    above, below, rules, first = [], [], [], 1
    for columns in table.groups:
        last = first + len(columns) - 1
        if len(columns) > 1:
            above.append(rf"\multicolumn{{{len(columns)}}}{{c}}{{{columns[0].name}}}")
            below += [_ABBREVIATIONS.get(column.heading, column.heading) for column in columns]
            rules.append(rf"\cmidrule(lr){{{first}-{last}}}")
        else:
            upper, lower = _format_headings(columns[0])
            above.append(upper)
            below.append(lower)
        first = last + 1
    lines = [_join_cells(above) + r" \\", " ".join(rules)]
    lines += [_join_cells(below) + r" \\"] if any(below) else []
    return list(filter(None, lines))


def _join_cells(cells: Sequence[str]) -> str:
    r"""Return the cells of a row as one line; ``{}`` protects ``[`` or ``*``, which ``\\`` before it would read."""
    line = " & ".join(cells)
    return f"{{}}{line}" if line.startswith(("[", "*")) else line


def _format_headings(column: Column) -> Sequence[str]:
    """Return the two lines of the heading of a column that is alone in its group, or has no group."""
    return column.group or column.heading, column.unit


def _choose_alignment(column: Column, label_width: float) -> str:
    if column.is_numeric:
        return "r"
    return rf"p{{{label_width}\linewidth}}" if _is_long(column, label_width) else "l"


def _is_long(column: Column, label_width: float) -> bool:
    """Return whether a column of text is too wide even at the smallest size; its cells are then broken at all sizes."""
    width = min(_SIZES.values()) * max(map(_estimate_cell_width, column.cells))
    return not column.is_numeric and width > label_width * TEXT_WIDTH


def _allow_line_breaks(column: Column, cell: str, label_width: float) -> str:
    return rf"\raggedright {cell}" if cell and _is_long(column, label_width) else cell


def _format_comments(text: str) -> Iterable[str]:
    """Return text as lines of comments."""
    return (f"% {line}" for line in textwrap.wrap(escape(text), 118, break_long_words=False, break_on_hyphens=False))


def _format_spread(spread: Spread) -> str:
    """Return ± the standard deviation, or for one run the distances to the bounds of the interval."""
    decimals = spread.decimals
    if not pd.isna(spread.std):
        return rf" \(\pm\) {spread.std:.{decimals}f}"
    if not spread.has_interval:
        return ""
    above, below = spread.high - spread.value, spread.value - spread.low
    return rf"\(^{{+{above:.{decimals}f}}}_{{-{below:.{decimals}f}}}\)"


def _format_power(mantissa: str, exponent: int) -> str:
    """Return a power of ten in text mode, because math mode would not be bold in a bold cell."""
    sign = r"\(-\)" if exponent < 0 else ""
    return mantissa.replace("·", r"\(\cdot\)") + rf"10\textsuperscript{{{sign}{abs(exponent)}}}"


LATEX = Markup(
    escape=escape,
    format_power=_format_power,
    format_spread=_format_spread,
    interval="Superscript and subscript",
    weight=r"\(\lambda\)",
    arrows={True: r"\(\uparrow\)", False: r"\(\downarrow\)"},
    interval_beside_std=False,
    equal=r"{\dag}",
)
