"""The main results of each data set, from the rows of its tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from nfpi.config.metrics import VALIDATION_PREFIX, metric
from nfpi.results.numbers import count_decimals, format_measurement, format_number, typeset_weight
from nfpi.runs import split_refitted

Row = Mapping[str, Any]
"""A row of a table (:data:`nfpi.results.tables.columns.ROW_COLUMNS`)."""


@dataclass(frozen=True)
class Headline:
    """A metric of the best row of a data set, as text.

    Attributes:
        metric: name of the metric.
        label: label of the metric, with the data set.
        value: value with its unit.
        of: name of the row.
        notes: interval, baseline and the paper's number.
    """

    metric: str
    label: str
    value: str
    of: str
    notes: list[str]


def show_headlines(tables: Sequence[pd.DataFrame]) -> Iterator[Headline]:
    """Yield the main results of each data set.

    These are the accuracies of the best flow, of the classifier trained on its samples, and of the best classifier
    trained on real images: of the rows at the λ that their tables choose, those that are best on the validation split.

    Args:
        tables: results of :func:`nfpi.results.tables.building.accuracy_table`.
    """
    rows: list[Row] = [dict(row) for frame in tables for row in frame.to_dict("records")]
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        of_dataset = [row for row in rows if row["dataset"] == dataset]
        flow, classifier = _find_best(of_dataset, "nf_acc"), _find_best(of_dataset, "top1")
        for name, row in (("nf_acc", flow), ("cnn_acc", flow), ("top1", classifier)):
            if row is not None and pd.notna(row.get(name)):
                yield _make_headline(name, row, of_dataset)


def _find_best(rows: Sequence[Row], name: str) -> Row | None:
    """Return the row that is best in a metric on the validation split; None: no row was chosen by it."""
    chosen = [row for row in rows if row["best"] and row["chosen_by"] == f"{VALIDATION_PREFIX}{name}"]
    return max((row for row in chosen if pd.notna(row.get(name))), key=lambda row: row["validation"], default=None)


def _make_headline(name: str, row: Row, rows: Sequence[Row]) -> Headline:
    """Make the headline of a row from its cells, and from the row at λ = 0 among all rows of the data set."""
    entry, seeds, images = metric(name), int(row[f"{name}_seeds"]), row["images"]
    decimals = count_decimals(entry, None if pd.isna(images) else int(images) * seeds)
    low, high = (format_number(row[f"{name}_{bound}"], decimals) for bound in ("low", "high"))
    notes = []
    if seeds > 1:
        notes.append(f"mean of {seeds} seeds, standard deviation {format_number(row[f'{name}_std'], decimals)}")
    elif low:
        notes.append(f"95 % interval {low} to {high}")
    baseline = _find_baseline(name, row, rows) if row["lambda"] > 0 else None
    if baseline is not None:
        notes.append(f"{_name_row(baseline)}: {format_number(baseline[name], decimals)} {entry.unit}")
    if pd.notna(row[f"paper_{name}"]):
        difference = format_number(row[f"{name}_difference"], decimals, signed=True)
        notes.append(f"the paper: {row[f'paper_{name}']:g} {entry.unit} (difference {difference})")
    chooser = metric(row["chosen_by"])
    notes.append(f"chosen by {chooser.label}: {format_measurement(row['validation'], chooser)}")
    value = f"{format_number(row[name], decimals)} {entry.unit}"
    return Headline(name, f"{entry.label} on {row['dataset']}", value, _name_row(row), notes)


def _find_baseline(name: str, row: Row, rows: Sequence[Row]) -> Row | None:
    """Return the first row of the flow at λ = 0 that has a metric, refitted if this one is; None: there is none."""
    refit = split_refitted(row["prior"])[1]
    alike = [other for other in rows if other["flow"] == row["flow"] and split_refitted(other["prior"])[1] == refit]
    return next((other for other in alike if other["lambda"] == 0 and pd.notna(other.get(name))), None)


def _name_row(row: Row) -> str:
    """Return e.g. `mef, fpi, λ = 10⁴`, `means only, λ = 10⁴` or `swin, standard+nfa`."""
    run = [row["flow"], row["prior"]] if row["flow"] else [row["classifier"], row["augmentation"]]
    weight = "" if pd.isna(row["lambda"]) else f"λ = {typeset_weight(row['lambda'])}"
    return ", ".join(filter(None, [*([row["row"]] if row["row"] else run), weight]))
