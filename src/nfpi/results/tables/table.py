"""Tables of texts, which :mod:`nfpi.results.tables.markup` writes in markup languages; formats of numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from nfpi.config.metrics import Metric
from nfpi.runs import format_weight

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


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
        links: address that each cell is linked to in HTML; empty: no links.
    """

    heading: str
    cells: Sequence[str]
    keys: Sequence[float | str | None] = field(repr=False)
    is_numeric: bool = False
    group: str = ""
    unit: str = ""
    links: Sequence[str] = ()

    @property
    def name(self) -> str:
        """Group or heading, with the unit."""
        return " ".join(filter(None, [self.group or self.heading, self.unit]))


@dataclass(frozen=True)
class Table:
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


def make_text_column(heading: str, values: Iterable[object], links: Sequence[str] = ()) -> Column:
    """Make a column of texts; None is an empty cell."""
    cells = ["" if value is None else str(value) for value in values]
    return Column(heading, cells, [cell or None for cell in cells], links=links)


def make_number_column(
    heading: str,
    values: Iterable[Any],
    form: int | Callable[[float], str] | Iterable[str],
    *,
    group: str = "",
    unit: str = "",
    arrow: str = "",
) -> Column:
    """Make a column of numbers; None and NaN are empty cells.

    Args:
        heading: heading.
        values: numbers, by which HTML sorts.
        form: number of decimals, function that formats a number, or the cells themselves.
        group: group of the column.
        unit: unit, without parentheses.
        arrow: `↑` or `↓`, the better direction.
    """
    keys = [None if value is None or value != value else float(value) for value in values]
    if isinstance(form, int):
        cells = ["" if key is None else format_amount(key, form) for key in keys]
    elif callable(form):
        cells = ["" if key is None else form(key) for key in keys]
    else:
        cells = list(form)
    unit = " ".join(filter(None, [f"({unit})" if unit else "", arrow]))
    return Column(heading, cells, keys, is_numeric=True, group=group, unit=unit)


# ---- numbers ------------------------------------------------------------------------------------------------


def format_number(value: float, decimals: int, *, signed: bool = False) -> str:
    """Format a number with a minus sign instead of a hyphen, never `−0.0`; `signed`: with a plus sign, too."""
    return "" if math.isnan(value) else f"{value:{'+' if signed else ''}z.{decimals}f}".replace("-", "−")


def format_amount(value: float, decimals: int) -> str:
    """Format a number, with e.g. `< 0.1` for a positive one that would be rounded to zero."""
    least = 10**-decimals
    return f"< {least:g}" if 0 < value < least / 2 else format_number(value, decimals)


def format_measurement(value: float, entry: Metric, images: int | None = None) -> str:
    """Format a value with its unit, e.g. `94.2 %`."""
    return format_number(value, count_decimals(entry, images)) + (f" {entry.unit}" if entry.unit else "")


def count_decimals(entry: Metric, images: int | None) -> int:
    """Return the number of decimals of a value; an accuracy has only as many as show a difference of one image."""
    if not entry.is_share or not images:
        return entry.decimals
    return min(entry.decimals, max(0, math.ceil(math.log10(images / 100))))


def typeset_weight(weight: float) -> str:
    """Format λ: 0, 500, 10³, 7.5·10⁶."""
    mantissa, exponent = split_weight(weight)
    if exponent == 0:
        return mantissa
    return ("" if mantissa == "1" else f"{mantissa}·") + "10" + str(exponent).translate(_SUPERSCRIPTS)


def split_weight(weight: float) -> tuple[str, int]:
    """Split λ exactly into (mantissa, exponent): 30000 → ("3", 4); unchanged in [0.01, 1000): 500 → ("500", 0)."""
    if weight == 0 or 1e-2 <= weight < 1e3:
        return format_weight(weight), 0
    _, digits, exponent = Decimal(repr(float(weight))).normalize().as_tuple()
    mantissa = str(digits[0]) + ("." + "".join(map(str, digits[1:])) if len(digits) > 1 else "")
    return mantissa, int(exponent) + len(digits) - 1
