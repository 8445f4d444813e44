"""Layout of tables of results, independent of the markup that they are written in."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

import pandas as pd

from nfpi.config.metrics import Metric
from nfpi.config.tables import select_printed_properties
from nfpi.results.metrics.registry import find_metric
from nfpi.results.tables.building import list_metrics, table_columns
from nfpi.results.tables.notes import compose_notes
from nfpi.results.tables.shared import (
    count_shared_seeds,
    find_shared_dataset,
    is_best,
    is_equal_to_best,
    is_weight_chosen,
)
from nfpi.results.tables.summaries import TableError
from nfpi.runs import format_weight


@dataclass(frozen=True)
class Spread:
    """A value with its uncertainty.

    Attributes:
        value: mean over seeds.
        std: standard deviation over seeds, NaN for one seed.
        low, high: bounds of the 95 % confidence interval, NaN if unknown.
        decimals: decimals of all four.
    """

    value: float
    std: float
    low: float
    high: float
    decimals: int

    @property
    def has_interval(self) -> bool:
        """Whether the interval is known."""
        return not math.isnan(self.low)

    @property
    def interval(self) -> str:
        """The interval as text, e.g. `[97.1, 99.5]`; empty if unknown."""
        if not self.has_interval:
            return ""
        return f"[{format_number(self.low, self.decimals)}, {format_number(self.high, self.decimals)}]"


@dataclass(frozen=True)
class Markup:
    """A markup language for tables.

    Attributes:
        escape: escapes text.
        format_power: formats a power of ten, from a factor before it (`7.5·`, or empty) and its exponent.
        format_spread: formats the uncertainty after a value: ± the standard deviation, the interval.
        interval: notation of an interval, for the notes.
        interval_beside_std: whether means over seeds show their interval in addition to the standard deviation.
        weight: symbol λ.
        arrows: symbols of the better direction of a metric, by whether higher is better.
        equal: mark of a value that does not differ significantly from the best one.
        escape_note: escapes text within a note; the default leaves it, for markups that escape finished notes.
    """

    escape: Callable[[str], str]
    format_power: Callable[[str, int], str]
    format_spread: Callable[[Spread], str]
    interval: str
    weight: str
    arrows: Mapping[bool | None, str]
    interval_beside_std: bool = True
    equal: str = "†"
    escape_note: Callable[[str], str] = str


@dataclass(frozen=True)
class Column:
    """A column of formatted cells.

    Attributes:
        heading: heading; within a group `ours`, `paper` or `difference`.
        cells: one cell per row; empty if unknown.
        keys: sort keys, one per row, numbers or text; None if unknown.
        is_numeric: whether the cells are numbers.
        group: metric shown by this and neighbouring columns; empty: no group.
        unit: unit of the metric, and the arrow of its better direction.
    """

    heading: str
    cells: list[str]
    keys: list[float | str | None] = field(repr=False)
    is_numeric: bool = False
    group: str = ""
    unit: str = ""

    @property
    def name(self) -> str:
        """Metric or heading, with the unit."""
        return " ".join(filter(None, [self.group or self.heading, self.unit]))


@dataclass(frozen=True)
class Table:
    """A laid-out table.

    Attributes:
        columns: columns, without empty ones.
        best: for each row, whether it is in bold, such as the best of several λ.
        notes: sentences that explain the table.
    """

    columns: list[Column]
    best: list[bool]
    notes: list[str]

    @property
    def rows(self) -> list[list[str]]:
        """The cells of each row."""
        return [list(cells) for cells in zip(*(column.cells for column in self.columns), strict=True)]

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


def lay_out(frame: pd.DataFrame, markup: Markup) -> Table:
    """Lay out a table of results.

    Empty columns are left out, and so are properties other than λ that all rows share; of these, the notes state the
    data set, and the number of test images if there are accuracies. If every row has a label, the columns prior,
    classifier and augmentation are left out, and the column flow if it follows from the labels.

    Args:
        frame: result of :func:`nfpi.results.tables.building.accuracy_table`.
        markup: markup of the cells.

    Raises:
        TableError: a column is missing.
    """
    shown = _find_metrics(frame)
    with_direction = len({entry.higher_is_better for entry in shown}) > 1
    columns = [*_make_run_columns(frame, markup), *_make_validation_column(frame, markup)]
    for entry in shown:
        columns += _make_metric_columns(frame, entry, markup, with_direction=with_direction)
    if (~frame["status"].isin(["ok", "cited"])).any():
        columns.append(_make_text_column(markup, "Status", frame["status"].replace(["ok", "cited"], "")))
    columns = [column for column in columns if any(column.cells)]
    return Table(columns, is_best(frame).tolist(), compose_notes(frame, shown, markup))


def split_weight(weight: float) -> tuple[str, int]:
    """Split λ exactly into (mantissa, exponent): 30000 → ("3", 4); unchanged in [0.01, 1000): 500 → ("500", 0)."""
    if weight == 0 or 1e-2 <= weight < 1e3:
        return format_weight(weight), 0
    _, digits, exponent = Decimal(repr(float(weight))).normalize().as_tuple()
    mantissa = str(digits[0]) + ("." + "".join(map(str, digits[1:])) if len(digits) > 1 else "")
    return mantissa, int(exponent) + len(digits) - 1


def typeset_weight(weight: float, markup: Markup) -> str:
    """Format λ: 0, 500, 10³, 7.5·10⁶."""
    mantissa, exponent = split_weight(weight)
    if exponent == 0:
        return mantissa
    return markup.format_power("" if mantissa == "1" else f"{mantissa}·", exponent)


def format_measurement(value: float, entry: Metric, images: int | None = None) -> str:
    """Format a value with its unit, e.g. `94.2 %`."""
    return format_number(value, count_decimals(entry, images)) + (f" {entry.unit}" if entry.unit else "")


def format_number(value: float, decimals: int, *, signed: bool = False) -> str:
    """Format a number with a minus sign instead of a hyphen, never `−0.0`; `signed`: with a plus sign, too."""
    return f"{value:{'+' if signed else ''}z.{decimals}f}".replace("-", "−")


def count_decimals(entry: Metric, images: int | None) -> int:
    """Return the number of decimals of a value; an accuracy has only as many as show a difference of one image."""
    if not entry.is_share or not images:
        return entry.decimals
    return min(entry.decimals, max(0, math.ceil(math.log10(images / 100))))


# ---- columns ------------------------------------------------------------------------------------------------


def _find_metrics(frame: pd.DataFrame) -> list[Metric]:
    """Return the metrics of a table of results; TableError if the frame is not one."""
    names = list_metrics(frame.columns)
    missing = [name for name in table_columns(names) if name not in frame.columns]
    if missing or not names:
        raise TableError(f"expected a table of results, column {missing[0] if missing else 'of a metric'} is missing")
    return [find_metric(name) for name in names]


def _make_run_columns(frame: pd.DataFrame, markup: Markup) -> Iterator[Column]:
    """Yield the columns that identify rows: λ, and the properties that differ and that labels do not replace."""
    uncited = frame[frame["status"] != "cited"]
    yield _make_text_column(markup, "", frame["row"])
    if find_shared_dataset(frame) is None:
        yield _make_text_column(markup, "Data set", frame["dataset"])
    properties = ("row", "flow", "prior", "classifier", "augmentation")
    for name in select_printed_properties({name: uncited[name].tolist() for name in properties}):
        yield _make_text_column(markup, name.capitalize(), frame[name])
    weights = ["" if pd.isna(weight) else typeset_weight(weight, markup) for weight in frame["lambda"]]
    yield Column(markup.weight, weights, _make_sort_keys(frame["lambda"]), is_numeric=True)
    if frame["images"].nunique() > 1:
        counts = ["" if pd.isna(count) else str(count) for count in frame["images"]]
        yield Column("Test images", counts, _make_sort_keys(frame["images"]), is_numeric=True)


def _make_validation_column(frame: pd.DataFrame, markup: Markup) -> Iterator[Column]:
    """Yield the column of the validation values by which λ was chosen, if it was."""
    if not is_weight_chosen(frame):
        return
    entries = [find_metric(name) if name else None for name in frame["chosen_by"].fillna("")]  # none in cited rows
    units = {entry.unit for entry in entries if entry is not None}
    cells = [
        "" if pd.isna(value) or entry is None else markup.escape(format_number(value, entry.decimals))
        for value, entry in zip(frame["validation"], entries, strict=True)
    ]
    unit = f"({markup.escape(units.pop())})" if len(units) == 1 and all(units) else ""
    yield Column("Validation", cells, _make_sort_keys(frame["validation"]), is_numeric=True, unit=unit)


def _make_metric_columns(
    frame: pd.DataFrame, entry: Metric, markup: Markup, *, with_direction: bool
) -> Iterator[Column]:
    """Yield the columns of a metric: our values, the paper's, and the differences."""
    name, label = entry.name, markup.escape(entry.label)
    unit = f"({markup.escape(entry.unit)})" if entry.unit else ""
    if with_direction:
        unit = f"{unit} {markup.arrows.get(entry.higher_is_better, '')}".strip()
    with_count = count_shared_seeds(frame) is None
    ours, differences = [], []
    equal = is_equal_to_best(frame, name)
    for row, mark in zip(frame.to_dict("records"), equal, strict=True):
        seeds = row[f"{name}_seeds"]
        images = None if pd.isna(row["images"]) or pd.isna(seeds) else int(row["images"]) * int(seeds)
        decimals = count_decimals(entry, images)
        spread = Spread(row[name], row[f"{name}_std"], row[f"{name}_low"], row[f"{name}_high"], decimals)
        ours.append(_format_value(spread, seeds if with_count else None, markup, is_equal=mark))
        differences.append(_format_difference(row[f"{name}_difference"], decimals, markup))
    numbers = ["" if pd.isna(value) else f"{value:.10g}" for value in frame[f"paper_{name}"]]
    paper = [markup.escape(number.replace("-", "−")) for number in numbers]
    yield Column("ours", ours, _make_sort_keys(frame[name]), is_numeric=True, group=label, unit=unit)
    yield Column("paper", paper, _make_sort_keys(frame[f"paper_{name}"]), is_numeric=True, group=label, unit=unit)
    yield Column(
        "difference", differences, _make_sort_keys(frame[f"{name}_difference"]), is_numeric=True, group=label, unit=unit
    )


def _make_text_column(markup: Markup, heading: str, texts: pd.Series) -> Column:
    keys: list[float | str | None] = [str(text) or None for text in texts]
    return Column(heading, [markup.escape(str(text)) for text in texts], keys)


def _make_sort_keys(values: pd.Series) -> list[float | str | None]:
    return [None if pd.isna(value) else float(value) for value in values]


def _format_value(spread: Spread, seeds: int | None, markup: Markup, *, is_equal: bool) -> str:
    """Format e.g. `98.3† ± 0.4 (n = 3)`; empty if unknown."""
    if pd.isna(spread.value):
        return ""
    count = "" if seeds is None or pd.isna(seeds) else f" (n = {seeds})"
    mark = markup.equal if is_equal else ""
    return f"{markup.escape(format_number(spread.value, spread.decimals))}{mark}{markup.format_spread(spread)}{count}"


def _format_difference(value: float, decimals: int, markup: Markup) -> str:
    """Format e.g. `+0.3`, `−1.6`; empty if unknown."""
    return "" if pd.isna(value) else markup.escape(format_number(value, decimals, signed=True))
