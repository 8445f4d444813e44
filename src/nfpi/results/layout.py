"""What a table of results shows, and in which words, for every form that it is written in."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

import pandas as pd

from nfpi.config.metrics import Metric
from nfpi.results.notes import write_notes
from nfpi.results.shared import (
    is_best,
    is_equal_to_best,
    metric_or_name,
    shared_dataset,
    shared_seeds,
    was_chosen,
)
from nfpi.results.tables import TableError, metrics_of_table, table_columns
from nfpi.runs import format_weight


@dataclass(frozen=True)
class Spread:
    """What is known of the uncertainty of a value, with the decimals that are shown.

    Attributes:
        value: the mean.
        std: standard deviation over seeds, NaN for one seed.
        low, high: bounds of the 95 % confidence interval, NaN where there is none.
        decimals: shown of each.
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


@dataclass(frozen=True)
class Markup:
    """How a form of tables writes what cells hold.

    Attributes:
        escape: text.
        times_power: a mantissa, empty or with a dot at its end, and a power of ten.
        spread: what follows a value: ± and the standard deviation, the interval.
        interval: how an interval is written, for the notes.
        interval_beside_std: whether values over seeds have their interval too, besides the standard deviation.
        weight: the name of λ.
        arrows: the better direction of a metric.
        equal: what follows a value that does not differ from the best one.
    """

    escape: Callable[[str], str]
    times_power: Callable[[str, int], str]
    spread: Callable[[Spread], str]
    interval: str
    weight: str
    arrows: Mapping[bool | None, str]
    interval_beside_std: bool = True
    equal: str = "†"


@dataclass(frozen=True)
class Column:
    """A column for people.

    Attributes:
        heading: what the cells are; in a group, whose they are: ours, the paper's.
        cells: one a row; empty where nothing is known.
        keys: what rows are sorted by, one a row: numbers or text; None where nothing is known.
        is_numeric: whether the cells are numbers.
        group: the metric that it and its neighbours are of; empty: it stands by itself.
        unit: of a metric, with the direction in which it is better.
    """

    heading: str
    cells: list[str]
    keys: list[float | str | None] = field(repr=False)
    is_numeric: bool = False
    group: str = ""
    unit: str = ""

    @property
    def name(self) -> str:
        """What it is of, with the unit."""
        return " ".join(filter(None, [self.group or self.heading, self.unit]))


@dataclass(frozen=True)
class Table:
    """A table that is laid out.

    Attributes:
        columns: none of them empty all the way down.
        best: which rows are the best of several, one a row.
        notes: sentences that say how to read it.
    """

    columns: list[Column]
    best: list[bool]
    notes: list[str]

    @property
    def rows(self) -> list[list[str]]:
        """The cells, row by row."""
        return [list(cells) for cells in zip(*(column.cells for column in self.columns), strict=True)]

    @property
    def groups(self) -> list[list[Column]]:
        """Neighbouring columns of one group together, others alone."""
        found: list[list[Column]] = []
        for column in self.columns:
            if column.group and found and found[-1][0].name == column.name:
                found[-1].append(column)
            else:
                found.append([column])
        return found

    @property
    def is_grouped(self) -> bool:
        """Whether some columns stand under the name of a group: there are two lines of headings then."""
        return any(len(columns) > 1 for columns in self.groups)


def lay_out(frame: pd.DataFrame, markup: Markup) -> Table:
    """Lay out a table of results.

    Columns that would be empty, and what all rows share, are left out; the notes say it.

    Args:
        frame: what :func:`nfpi.results.tables.accuracy_table` returns.
        markup: of the form that it is written in.

    Raises:
        TableError: a column is missing.
    """
    shown = _metrics(frame)
    with_direction = len({entry.higher_is_better for entry in shown}) > 1
    columns = [*_columns_of_runs(frame, markup), *_column_of_choice(frame, markup)]
    for entry in shown:
        columns += _columns_of_metric(frame, entry, markup, with_direction=with_direction)
    if (~frame["status"].isin(["ok", "cited"])).any():
        columns.append(_text_column(markup, "Status", frame["status"].replace(["ok", "cited"], "")))
    kept = [column for column in columns if any(column.cells)]
    return Table(kept, is_best(frame).tolist(), write_notes(frame, shown, markup))


def weight_parts(weight: float) -> tuple[str, int]:
    """λ exactly, as (mantissa, exponent): 30000 → ("3", 4), but 500 → ("500", 0), as is from 0.01 to 1000."""
    if weight == 0 or 1e-2 <= weight < 1e3:
        return format_weight(weight), 0
    _, digits, exponent = Decimal(repr(float(weight))).normalize().as_tuple()
    mantissa = str(digits[0]) + ("." + "".join(map(str, digits[1:])) if len(digits) > 1 else "")
    return mantissa, int(exponent) + len(digits) - 1


def write_weight(weight: float, markup: Markup) -> str:
    """λ for people: 0, 500, 10³, 7.5·10⁶."""
    mantissa, exponent = weight_parts(weight)
    if exponent == 0:
        return mantissa
    return markup.times_power("" if mantissa == "1" else f"{mantissa}·", exponent)


def measured(value: float, entry: Metric, images: int | None = None) -> str:
    """Return a value with its unit: `94.2 %`."""
    return f"{value:.{decimals_of(entry, images)}f}" + (f" {entry.unit}" if entry.unit else "")


def decimals_of(entry: Metric, images: int | None) -> int:
    """Decimals of a value: those of the metric, but no digit of an accuracy that is finer than one of its images."""
    if not entry.is_share or not images:
        return entry.decimals
    return min(entry.decimals, max(0, math.ceil(math.log10(images / 100))))


# ---- columns ------------------------------------------------------------------------------------------------


def _metrics(frame: pd.DataFrame) -> list[Metric]:
    """Return the metrics of a table of results, which the frame must be."""
    names = metrics_of_table(frame.columns)
    missing = [name for name in table_columns(names) if name not in frame.columns]
    if missing or not names:
        raise TableError(f"expected a table of results, column {missing[0] if missing else 'of a metric'} is missing")
    return [metric_or_name(name) for name in names]


def _columns_of_runs(frame: pd.DataFrame, markup: Markup) -> Iterator[Column]:
    """What rows are about; names that all rows share, or that their labels stand for, are left out."""
    own = frame[frame["status"] != "cited"]
    yield _text_column(markup, "", frame["row"])
    if shared_dataset(frame) is None:
        yield _text_column(markup, "Data set", frame["dataset"])
    if own.loc[own["flow"] != "", "flow"].nunique() > 1 and not _labels_tell(own, "flow"):
        yield _text_column(markup, "Flow", frame["flow"])
    for name in ("prior", "classifier", "augmentation"):
        if own[name].nunique() > 1 and not frame["row"].all():
            yield _text_column(markup, name.capitalize(), frame[name])
    weights = ["" if pd.isna(weight) else write_weight(weight, markup) for weight in frame["lambda"]]
    yield Column(markup.weight, weights, _numbers(frame["lambda"]), is_numeric=True)
    if frame["images"].nunique() > 1:
        counts = ["" if pd.isna(count) else str(count) for count in frame["images"]]
        yield Column("Test images", counts, _numbers(frame["images"]), is_numeric=True)


def _labels_tell(own: pd.DataFrame, name: str) -> bool:
    """Return whether rows of one label have one value in a column."""
    return bool((own["row"] != "").all() and own.groupby("row")[name].nunique().max() == 1)


def _column_of_choice(frame: pd.DataFrame, markup: Markup) -> Iterator[Column]:
    """Yield the validation values that λ was chosen by, where it was."""
    if not was_chosen(frame):
        return
    entries = [metric_or_name(name) if name else None for name in frame["chosen_by"].fillna("")]
    decimals = [1 if entry is None else entry.decimals for entry in entries]
    units = {entry.unit for entry in entries if entry is not None} or {"%"}  # tables of older versions do not say it
    cells = [
        "" if pd.isna(value) else f"{value:.{digits}f}"
        for value, digits in zip(frame["validation"], decimals, strict=True)
    ]
    unit = f"({markup.escape(units.pop())})" if len(units) == 1 and all(units) else ""
    yield Column("Validation", cells, _numbers(frame["validation"]), is_numeric=True, unit=unit)


def _columns_of_metric(frame: pd.DataFrame, entry: Metric, markup: Markup, *, with_direction: bool) -> Iterator[Column]:
    """Ours, the paper's, and the difference."""
    name, label = entry.name, markup.escape(entry.label)
    unit = f"({markup.escape(entry.unit)})" if entry.unit else ""
    if with_direction:
        unit = f"{unit} {markup.arrows.get(entry.higher_is_better, '')}".strip()
    with_count = shared_seeds(frame) is None
    ours, differences = [], []
    equal = is_equal_to_best(frame, name)
    for row, mark in zip(frame.to_dict("records"), equal, strict=True):
        seeds = row[f"{name}_seeds"]
        images = None if pd.isna(row["images"]) or pd.isna(seeds) else int(row["images"]) * int(seeds)
        decimals = decimals_of(entry, images)
        spread = Spread(row[name], row[f"{name}_std"], row[f"{name}_low"], row[f"{name}_high"], decimals)
        ours.append(_value(spread, seeds if with_count else None, markup, is_equal=mark))
        differences.append(_difference(row[f"{name}_difference"], decimals, markup))
    paper = ["" if pd.isna(value) else format_weight(value) for value in frame[f"paper_{name}"]]
    yield Column("ours", ours, _numbers(frame[name]), is_numeric=True, group=label, unit=unit)
    yield Column("paper", paper, _numbers(frame[f"paper_{name}"]), is_numeric=True, group=label, unit=unit)
    yield Column(
        "difference", differences, _numbers(frame[f"{name}_difference"]), is_numeric=True, group=label, unit=unit
    )


def _text_column(markup: Markup, heading: str, texts: pd.Series) -> Column:
    keys: list[float | str | None] = [str(text) or None for text in texts]
    return Column(heading, [markup.escape(str(text)) for text in texts], keys)


def _numbers(values: pd.Series) -> list[float | str | None]:
    return [None if pd.isna(value) else float(value) for value in values]


def _value(spread: Spread, seeds: int | None, markup: Markup, *, is_equal: bool) -> str:
    """`98.3† ± 0.4 (n = 3)`, or nothing."""
    if pd.isna(spread.value):
        return ""
    count = "" if seeds is None or pd.isna(seeds) else f" (n = {seeds})"
    mark = markup.equal if is_equal else ""
    return f"{spread.value:.{spread.decimals}f}{mark}{markup.spread(spread)}{count}"


def _difference(value: float, decimals: int, markup: Markup) -> str:
    """`+0.3`, `−1.6`, or nothing; a difference that is rounded to zero has no minus."""
    return "" if pd.isna(value) else markup.escape(f"{round(value, decimals) + 0.0:+.{decimals}f}".replace("-", "−"))
