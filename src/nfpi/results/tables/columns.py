"""Columns of the tables of results: of each, its name and type in csv, its value, and how the formatted table shows it.

To add a column, add it to :data:`ROW_COLUMNS`. A metric is added as an entry of :data:`nfpi.config.METRICS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nfpi.config.base import ConfigError
from nfpi.config.settings import Config
from nfpi.results.numbers import typeset_weight
from nfpi.results.tables.rows import list_table_rows
from nfpi.runs import format_weight

if TYPE_CHECKING:  # these are slow to import, and `snakemake` calls check_tables
    import pandas as pd

    from nfpi.results.tables.summaries import MeasuredRow, Summary

PRINTED_PROPERTIES = ("flow", "prior", "classifier", "augmentation")
"""Properties that a table prints to identify its rows if its labels do not."""
RESERVED = re.compile(r"paper_.*|(?!gan_test$).*_(std|low|high|seeds|difference|test|p)")
"""Names of columns that follow from a metric's; GAN-test is a metric."""


@dataclass(frozen=True)
class RowColumn:
    """A column that is not a metric's.

    Attributes:
        kind: type in csv.
        value: returns its value in a row.
        heading: heading in formatted tables, which show it where `is_shown`; None: it is not shown as it is.
        is_shown: whether the formatted table of a frame shows it, unless all its cells are empty.
        form: formats a number; None: the values are texts.
        identifies: whether a row is named by it in notes.
    """

    kind: str
    value: Callable[[MeasuredRow], Any]
    heading: str | None = None
    is_shown: Callable[[pd.DataFrame], bool] = lambda frame: True
    form: Callable[[float], str] | None = None
    identifies: bool = True


def _property(name: str) -> RowColumn:
    """Return the column of a property of rows that is shown if it tells rows apart."""

    def is_shown(frame: pd.DataFrame) -> bool:
        return name in select_printed_properties(frame[frame["status"] != "cited"])

    return RowColumn("str", lambda measured: getattr(measured.row, name) or "", name.capitalize(), is_shown)


ROW_COLUMNS = {
    "experiment": RowColumn("int64", lambda measured: measured.row.experiment),
    "row": RowColumn("str", lambda measured: measured.row.label, ""),
    "dataset": RowColumn(
        "str", lambda measured: measured.row.dataset, "Data set", lambda frame: find_shared_dataset(frame) is None
    ),
    "flow": _property("flow"),
    "prior": _property("prior"),
    "lambda": RowColumn("float64", lambda measured: measured.row.weight, "λ", form=typeset_weight),
    "classifier": _property("classifier"),
    "augmentation": _property("augmentation"),
    "images": RowColumn(
        "Int64",
        lambda measured: measured.images,
        "Test images",
        lambda frame: frame["images"].nunique() > 1,
        "{:.0f}".format,
        identifies=False,
    ),
    "status": RowColumn("str", lambda measured: measured.status),
    "validation": RowColumn("float64", lambda measured: measured.validation.mean),
    "chosen_by": RowColumn("str", lambda measured: measured.chosen_by),
    "candidates": RowColumn("Int64", lambda measured: measured.candidates),
    "best": RowColumn("bool", lambda measured: measured.is_best),
    "split_ratio": RowColumn("float64", lambda measured: measured.row.split_ratio),
}
"""Columns of every table.

`images` is the number of test images of one run. `validation` is the mean of the metric `chosen_by`, by which λ is
chosen on the validation split; `best` marks the chosen λ of an experiment; `candidates` is the number of λ to choose
from. `split_ratio` is the number of test images per training image if the seeds' splits overlap, by which intervals and
tests over seeds are corrected; 0: they are not corrected.
"""

MISMATCH = "mismatch"
VALIDATION_IMAGES = "validation_images"
DRAWS, UNSEEN = "draws", "unseen"
NOTED_COLUMNS = {MISMATCH: "float64", VALIDATION_IMAGES: "Int64", DRAWS: "Int64", UNSEEN: "float64"}
"""Columns that the notes of a table need, with their types; they are left out where they would be empty.

`mismatch` is that metric, whether or not the table shows it, and `validation_images` the number of validation images
that λ was chosen on, if they are few. `draws` is the number of draws of noise and samples by which an imported model
was measured, `unseen` the number of test images that it is known not to be trained on.
"""

METRIC_COLUMNS: dict[str, tuple[str, Callable[[Summary, float], Any]]] = {
    "{}": ("float64", lambda ours, paper: ours.mean),
    "{}_std": ("float64", lambda ours, paper: ours.std),
    "{}_low": ("float64", lambda ours, paper: ours.interval[0]),
    "{}_high": ("float64", lambda ours, paper: ours.interval[1]),
    "{}_seeds": ("Int64", lambda ours, paper: ours.count),
    "paper_{}": ("float64", lambda ours, paper: paper),
    "{}_difference": ("float64", lambda ours, paper: ours.mean - paper),
    "{}_test": ("str", lambda ours, paper: ""),
    "{}_p": ("float64", lambda ours, paper: None),
}
"""Columns of each metric, with their types, and their values from ours over seeds and the paper's.

`_seeds` is the number of seeds of the mean, 1 for an imported model, `_std` the standard deviation over seeds (n − 1),
`_low` and `_high` are the bounds of the 95 % confidence interval. `_test` names the test that compares the row with the
best one in this metric, and `_p` is its adjusted p-value, empty for the best row;
:func:`nfpi.results.tables.building.compare_with_best` computes both.
"""


def table_columns(metrics: Iterable[str], noted: Collection[str] = ()) -> dict[str, str]:
    """Return the columns of a table of these metrics, with their types; of :data:`NOTED_COLUMNS`, those in `noted`."""
    columns = {name: column.kind for name, column in ROW_COLUMNS.items()}
    columns |= {form.format(name): kind for name in metrics for form, (kind, _) in METRIC_COLUMNS.items()}
    return columns | {name: kind for name, kind in NOTED_COLUMNS.items() if name in noted}


def list_metrics(columns: Iterable[str]) -> list[str]:
    """Return the metrics of a table with these columns."""
    return [column.removesuffix("_seeds") for column in columns if column.endswith("_seeds")]


def select_printed_properties(columns: Mapping[str, Sequence[str]] | pd.DataFrame) -> list[str]:
    """Return the properties that a table prints to identify its rows, besides their labels, data sets and λ.

    `flow` is printed if there are several flows, unless the labels determine it; `prior`, `classifier` and
    `augmentation` each if rows differ in it and some row has no label.

    Args:
        columns: `row` (the label), `flow`, `prior`, `classifier` and `augmentation` of each row, except rows of cited
            work; an empty text: the row has none.
    """
    labels, flows = list(columns["row"]), list(columns["flow"])
    follows_from_labels = all(labels) and len(set(zip(labels, flows, strict=True))) == len(set(labels))
    printed = ["flow"] if len(set(flows) - {""}) > 1 and not follows_from_labels else []
    if not all(labels):
        printed += [name for name in PRINTED_PROPERTIES[1:] if len(set(columns[name])) > 1]
    return printed


def find_shared_dataset(frame: pd.DataFrame) -> str | None:
    """Return the data set of all rows; None if there are several."""
    names = frame.loc[frame["dataset"] != "", "dataset"].unique()
    return str(names[0]) if len(names) == 1 else None


def count_shared_seeds(frame: pd.DataFrame) -> int | None:
    """Return the number of seeds per value; None if it varies, or there are no values."""
    columns = [f"{name}_seeds" for name in list_metrics(frame.columns)]
    counts = {int(count) for column in columns for count in frame[column].dropna()}
    return counts.pop() if len(counts) == 1 else None


def check_tables(config: Config) -> None:
    """Check that the rows of each table differ in what it prints of them, and names of metrics from other columns'.

    Raises:
        ConfigError: they do not.
    """
    for name, table in config.tables.items():
        for metric in table.metrics:
            if metric in ROW_COLUMNS or RESERVED.fullmatch(metric):
                raise ConfigError(f"metric '{metric}': this name is reserved for a column of tables: rename it")
        rows = list_table_rows(config, name)
        printed = select_printed_properties(
            {
                "row": [row.label for row in rows],
                **{key: [getattr(row, key) or "" for row in rows] for key in PRINTED_PROPERTIES},
            }
        )
        known: dict[tuple[Any, ...], int] = {}
        for row in rows:
            identity = (row.label, row.dataset, row.weight, *(getattr(row, key) for key in printed))
            first = known.setdefault(identity, row.experiment)
            if first != row.experiment:
                label = f"label '{row.label}'" if row.label else "no label"
                at_weight = "" if row.weight is None else f" with λ = {format_weight(row.weight)}"
                label += f" on '{row.dataset}'{at_weight}"
                raise ConfigError(
                    f"tables.{name}.experiments.{row.experiment}: expected a row that can be told apart from that of "
                    f"experiments.{first}, received {label} in both: set another label"
                )
