r"""Tables as LaTeX: ASCII alone, for ``\input`` in a document that loads booktabs and no other package."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pandas as pd
from pylatexenc.latexencode import RULE_DICT, UnicodeToLatexConversionRule, UnicodeToLatexEncoder

from nfpi.results.layout import Column, Markup, Spread, Table, lay_out

TEXT_WIDTH = 345.0
"""Width of the text, in points of a 10 pt document of class article; that of larger fonts is larger by as much."""

_SIZES = {r"\normalsize": 1.0, r"\small": 0.925, r"\footnotesize": 0.85, r"\scriptsize": 0.8}
"""Sizes of fonts that a table may be set in, largest first, with the width of their letters."""
_WIDTHS = (
    dict.fromkeys("ijl.,:;'!|[]", 2.8)
    | dict.fromkeys("frstI()/- ", 3.8)
    | dict.fromkeys("mwABCDEFGHJKLMNOPQRSTUVWXYZ%&", 7.5)
)
"""Of letters of Computer Modern at normal size, in points; others, and digits, are 5 wide."""
_BOLD = 1.15
"""How much wider a letter is in bold."""
_GAP = 3.0
r"""Half the space between columns, in points (``\tabcolsep``)."""
_LONGEST_LABEL = 0.4
"""Share of the width of the text that one column of text may take; longer ones are broken."""

_SHORT = {"difference": "diff."}

_NOT_IN_OT1 = dict(zip("ĄąĘęĮįŲųÐðĐđŊŋÞþ„‚‑", (*"AaEeIiUuDdDdNn", "Th", "th", ",,", ",", "-"), strict=True)) | {
    "«": r"\ensuremath{\ll}",
    "»": r"\ensuremath{\gg}",
    "∅": r"\ensuremath{\emptyset}",
    "ŉ": "'n",
}
"""What stands for characters that LaTeX's first encoding of fonts lacks."""

_encoder = UnicodeToLatexEncoder(
    conversion_rules=[
        UnicodeToLatexConversionRule(RULE_DICT, {ord(letter): text for letter, text in _NOT_IN_OT1.items()}),
        "defaults",
    ],
    unknown_char_policy="unihex",
    unknown_char_warning=False,
)


def to_latex(frame: pd.DataFrame, title: str) -> str:
    r"""The table as LaTeX for ``\input``: ASCII, at most as wide as the text, with booktabs and no other package.

    The font is the largest one that the table fits in; where even the smallest is too large, the metrics are spread
    over several tabulars, one below the other.

    Raises:
        TableError: a column is missing.
    """
    return latex_of(lay_out(frame, LATEX), title)


def latex_of(table: Table, title: str) -> str:
    """Return a table that is laid out, in the form of :func:`to_latex`."""
    size, panels = _fit(table)
    lines = [
        *_wrapped(title),
        *_wrapped(" ".join(table.notes)),
        r"% Needs \usepackage{booktabs} and no other package; at most as wide as the text of an article.",
        *(r"\begingroup", size, rf"\setlength{{\tabcolsep}}{{{_GAP:g}pt}}"),
    ]
    for index, panel in enumerate(panels):
        lines += [r"\par\medskip\noindent"] if index else []
        lines += _tabular(panel)
    return "\n".join([*lines, r"\endgroup"]) + "\n"


def escape(text: str) -> str:
    """Text as LaTeX in ASCII; a letter that LaTeX has no name for is given by its number."""
    return str(_encoder.unicode_to_latex(text))


# ---- how wide ------------------------------------------------------------------------------------------------


def _fit(table: Table) -> tuple[str, list[Table]]:
    """Return the size of the font, and the tabulars: one, or several with some of the metrics each."""
    for size, factor in _SIZES.items():
        if _width(table, factor) <= TEXT_WIDTH:
            return size, [table]
    of_runs = [column for column in table.columns if not column.group]
    panels: list[Table] = []
    for columns in table.groups:
        if not columns[0].group:
            continue
        if panels:
            wider = replace(panels[-1], columns=[*panels[-1].columns, *columns])
            if _width(wider, factor) <= TEXT_WIDTH:
                panels[-1] = wider
                continue
        panels.append(replace(table, columns=[*of_runs, *columns]))
    return size, panels or [table]


def _width(table: Table, factor: float) -> float:
    """Return an estimate of the width of a tabular, in points."""
    total = 0.0
    for columns in table.groups:
        is_group = len(columns) > 1
        widths = [_column_width(column, is_group, factor, table.best) for column in columns]
        over_all = factor * _length(columns[0].name) if is_group else 0.0
        total += max(sum(widths), over_all)
    return 1.04 * total + 2 * _GAP * (len(table.columns) - 1)


def _column_width(column: Column, is_of_group: bool, factor: float, best: Sequence[bool]) -> float:
    headings = [_SHORT.get(column.heading, column.heading)] if is_of_group else _headings(column)
    cells = [_length(cell) * (_BOLD if bold else 1) for cell, bold in zip(column.cells, best, strict=True)]
    width = factor * max(*map(_length, headings), *cells, 0.0)
    return width if column.is_numeric else min(width, _LONGEST_LABEL * TEXT_WIDTH)


def _length(cell: str) -> float:
    """Return the width of a cell at normal size, in points of Computer Modern."""
    value, _, interval = cell.partition(r"\(^{")
    above = interval.partition("}")[0]
    return sum(_WIDTHS.get(letter, 5.0) for letter in _printed(value)) + 4.0 * len(above)


def _printed(cell: str) -> str:
    """Return a cell with a wide letter in the place of each sign that is a command."""
    text = re.sub(r"\\(textsuperscript|ensuremath|[()])", "", cell)
    return re.sub(r"[{}]", "", re.sub(r"\\([A-Za-z]+|.)", "m", text))


# ---- what is written ----------------------------------------------------------------------------------------


def _tabular(table: Table) -> list[str]:
    lines = [rf"\begin{{tabular}}{{@{{}}{''.join(map(_alignment, table.columns))}@{{}}}}", r"\toprule"]
    lines += _header(table)
    lines.append(r"\midrule")
    for cells, best in zip(table.rows, table.best, strict=True):
        row = [_broken(column, cell) for column, cell in zip(table.columns, cells, strict=True)]
        lines.append(" & ".join(rf"\textbf{{{cell}}}" if best and cell else cell for cell in row) + r" \\")
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _header(table: Table) -> list[str]:
    """Two lines of headings: a metric above, its unit below it, or whose its values are; one where nothing is below."""
    above, below, rules, first = [], [], [], 1
    for columns in table.groups:
        last = first + len(columns) - 1
        if len(columns) > 1:
            above.append(rf"\multicolumn{{{len(columns)}}}{{c}}{{{columns[0].name}}}")
            below += [_SHORT.get(column.heading, column.heading) for column in columns]
            rules.append(rf"\cmidrule(lr){{{first}-{last}}}")
        else:
            upper, lower = _headings(columns[0])
            above.append(upper)
            below.append(lower)
        first = last + 1
    lines = [" & ".join(above) + r" \\", " ".join(rules)]
    lines += [" & ".join(below) + r" \\"] if any(below) else []
    return list(filter(None, lines))


def _headings(column: Column) -> Sequence[str]:
    """What stands above a column that is alone in its group, in two lines."""
    return column.group or column.heading, column.unit


def _alignment(column: Column) -> str:
    if column.is_numeric:
        return "r"
    return rf"p{{{_LONGEST_LABEL}\linewidth}}" if _is_long(column) else "l"


def _is_long(column: Column) -> bool:
    """Return whether a column of text is broken into lines, in whichever size it is set."""
    width = min(_SIZES.values()) * max(map(_length, column.cells))
    return not column.is_numeric and width > _LONGEST_LABEL * TEXT_WIDTH


def _broken(column: Column, cell: str) -> str:
    return rf"\raggedright {cell}" if cell and _is_long(column) else cell


def _wrapped(text: str) -> Iterable[str]:
    """Text as comments."""
    return (f"% {line}" for line in textwrap.wrap(escape(text), 118, break_long_words=False, break_on_hyphens=False))


def _spread(spread: Spread) -> str:
    """± the standard deviation, or the interval of one run as distances above and below."""
    decimals = spread.decimals
    if not pd.isna(spread.std):
        return rf" \(\pm\) {spread.std:.{decimals}f}"
    if not spread.has_interval:
        return ""
    above, below = spread.high - spread.value, spread.value - spread.low
    return rf"\(^{{+{above:.{decimals}f}}}_{{-{below:.{decimals}f}}}\)"


def _power(mantissa: str, exponent: int) -> str:
    """Return a power of ten as text, for mathematics would not turn bold in a bold cell."""
    sign = r"\(-\)" if exponent < 0 else ""
    return mantissa.replace("·", r"\(\cdot\)") + rf"10\textsuperscript{{{sign}{abs(exponent)}}}"


LATEX = Markup(
    escape=escape,
    times_power=_power,
    spread=_spread,
    interval="Superscript and subscript",
    weight=r"\(\lambda\)",
    arrows={True: r"\(\uparrow\)", False: r"\(\downarrow\)"},
    interval_beside_std=False,
    equal=r"{\dag}",
)
