"""Accuracies of many runs as one table, beside the paper's numbers.

A table is a list of experiments (:class:`nfpi.config.Table`), a row for each λ or for the best one. Accuracies are in
percent, differences in percentage points. What is not known is an empty cell.
"""

from __future__ import annotations

import math
import os
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import pandas as pd

from nfpi.config.resolution import NO_FLOW, format_weight, leaf_prior
from nfpi.config.experiments import Experiment, Table
from nfpi.config.settings import PriorConfig
from nfpi.results.records import read_csv

METRICS = {
    "nf_acc": "NF-Acc",
    "cnn_acc": "CNN-Acc",
    "top1": "Top-1",
    "top5": "Top-5",
    "real_top1": "ReaL top-1",
    "real_top5": "ReaL top-5",
}
"""What a table may show of a run, and what it is called there."""

_OF_FLOWS = ("nf_acc", "cnn_acc")

COLUMNS = {
    "experiment": "int64",
    "row": "str",
    "dataset": "str",
    "prior": "str",
    "lambda": "float64",
    "classifier": "str",
    "augmentation": "str",
    "status": "str",
    "validation": "float64",
    "best": "bool",
} | {
    column: kind
    for metric in METRICS
    for column, kind in {
        metric: "float64",
        f"{metric}_std": "float64",
        f"{metric}_seeds": "Int64",
        f"paper_{metric}": "float64",
        f"{metric}_difference": "float64",
    }.items()
}
"""Columns of a table, with their types.

`validation` is what is chosen by: NF-Acc, or the classifier's top-1, on the validation split; `best` marks the λ of an
experiment where it is highest. `_seeds` counts the runs behind a mean, `_std` is the standard deviation over them
(n − 1), `_difference` is ours − the paper's.
"""

REFERENCE_COLUMNS = {
    "table": "str",
    "row": "str",
    "dataset": "str",
    "prior": "str",
    "lambda": "float64",
    "classifier": "str",
    "augmentation": "str",
    "metric": "str",
    "value": "float64",
    "source": "str",
}
"""Columns of the paper's numbers; a classifier of real images leaves prior and λ empty, a cited work all."""


class TableError(ValueError):
    """Two values for one cell, or a frame that is no accuracy table; the message is one line."""


def accuracy_table(
    metrics: pd.DataFrame, table: Table, reference: pd.DataFrame, priors: Mapping[str, PriorConfig]
) -> pd.DataFrame:
    """Accuracies over seeds, one row for each (experiment, λ), beside the paper's; then the cited work.

    Rows keep the order of the experiments; within one, λ ascends. A λ with no leaf has status « missing ». Seeds that
    diverged are left out of the means and counted in `status`. λ = 0 of a fixed point is read from the leaf that all
    priors with the same start share, for ours and the paper's.

    Args:
        metrics: what :func:`nfpi.results.records.collect` returns, in any order.
        table: the experiments.
        reference: the paper's numbers (:func:`read_reference`), whichever table they stand in.
        priors: settings of the priors that the experiments name.

    Returns:
        A frame with the columns :data:`COLUMNS`.

    Raises:
        TableError: two values for one metric of one run, two different reference values for one cell, or a
            prior that is not among `priors`.
    """
    known = _reference_values(reference)
    rows = []
    for index, experiment in enumerate(table.experiments):
        if experiment.prior is not None and experiment.prior not in priors:
            raise TableError(f"unknown prior '{experiment.prior}' (known: {', '.join(priors)})")
        made = _experiment_rows(metrics, experiment, priors, known)
        if table.best_only and any(row["best"] for row in made):
            made = [row for row in made if row["best"]]
        rows += [{"experiment": index, **row} for row in made]
    for index, label in enumerate(table.literature, len(table.experiments)):
        rows += [{"experiment": index, **row} for row in _cited_rows(label, reference)]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def read_reference(path: str | os.PathLike[str]) -> pd.DataFrame:
    """The paper's numbers (workflow/reference/paper.csv).

    Raises:
        MetricsError: a column is missing or of another type.
    """
    return read_csv(path, REFERENCE_COLUMNS)


def read_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    """An accuracy table that :func:`nfpi.results.tables.write_table` wrote as CSV.

    Raises:
        MetricsError: a column is missing or of another type.
    """
    return read_csv(path, COLUMNS)


def _experiment_rows(
    metrics: pd.DataFrame,
    experiment: Experiment,
    priors: Mapping[str, PriorConfig],
    known: Mapping[Hashable, float],
) -> list[dict[str, object]]:
    """The rows of one experiment."""
    rows: list[dict[str, object]] = []
    of_dataset = metrics[metrics["dataset"] == experiment.dataset]
    if experiment.prior is None:
        rows.append(_row(of_dataset[of_dataset["prior"] == NO_FLOW], experiment, NO_FLOW, math.nan, known))
    else:
        for weight in sorted({float(weight) for weight in experiment.lambdas}):
            prior = leaf_prior(experiment.prior, priors[experiment.prior], weight)
            leaf = of_dataset[(of_dataset["prior"] == prior) & (of_dataset["lambda"] == weight)]
            rows.append(_row(leaf, experiment, prior, weight, known))
    scored = [row for row in rows if not math.isnan(float(row["validation"]))]  # type: ignore[arg-type]
    if scored:
        max(scored, key=lambda row: row["validation"])["best"] = True  # type: ignore[arg-type, return-value]
    return rows


def _row(
    leaf: pd.DataFrame, experiment: Experiment, prior: str, weight: float, known: Mapping[Hashable, float]
) -> dict[str, object]:
    """One λ of an experiment; `leaf` has all that was measured below it."""
    of_classifier = (leaf["stage"] == experiment.classifier) & leaf["augmentation"].isin(["", experiment.augmentation])
    of_real_images = experiment.prior is None or experiment.uses_nfa
    leaf = leaf[of_classifier if of_real_images else of_classifier | (leaf["stage"] == "flow")]
    diverged = leaf[leaf["status"] != "ok"].drop_duplicates("seed")
    finished = leaf[~leaf["seed"].isin(diverged["seed"])]
    row: dict[str, object] = {
        "row": experiment.label,
        "dataset": experiment.dataset,
        "prior": experiment.prior or NO_FLOW,
        "lambda": weight,
        "classifier": experiment.classifier or "",
        "augmentation": experiment.augmentation if experiment.classifier else "",
        "status": _status(diverged["status"].tolist(), leaf["seed"].nunique()),
        "validation": _over_seeds(finished, "validation_top1" if of_real_images else "validation_nf_acc").mean,
        "best": False,
    }
    for metric in METRICS:
        ours = _over_seeds(finished, metric)
        key: tuple[object, ...] = (experiment.dataset, experiment.classifier, experiment.augmentation, metric)
        if metric in _OF_FLOWS:
            taught = experiment.classifier if metric == "cnn_acc" else ""
            key = (experiment.dataset, prior, "" if math.isnan(weight) else format_weight(weight), taught, metric)
        hidden = metric in _OF_FLOWS and of_real_images
        paper = math.nan if hidden else known.get(key, math.nan)
        row |= {
            metric: ours.mean,
            f"{metric}_std": ours.std,
            f"{metric}_seeds": ours.count,
            f"paper_{metric}": paper,
            f"{metric}_difference": ours.mean - paper,
        }
    return row


def _cited_rows(label: str, reference: pd.DataFrame) -> list[dict[str, object]]:
    """A row a data set for which a number of the cited work is known, or one without any."""
    cited = reference[reference["row"] == label]
    empty = dict.fromkeys(("prior", "classifier", "augmentation"), "") | {
        "row": label,
        "status": "cited",
        "best": False,
    }
    if cited.empty:
        return [empty | {"dataset": ""}]
    return [
        empty | {"dataset": dataset} | {f"paper_{row['metric']}": row["value"] for row in rows.to_dict("records")}
        for dataset, rows in cited.groupby("dataset", sort=False)
    ]


@dataclass(frozen=True)
class _Summary:
    """Mean and standard deviation of one metric; NaN and no count where unknown."""

    count: int | None
    mean: float
    std: float


def _over_seeds(leaf: pd.DataFrame, metric: str) -> _Summary:
    """Mean over seeds, and their standard deviation with n − 1."""
    # A floating-point sum depends on the order of its terms; sorted, it does not depend on that of the files.
    rows = leaf[leaf["metric"] == metric].sort_values("seed")
    if rows["seed"].duplicated().any():
        row = rows[rows["seed"].duplicated()].iloc[0]
        raise TableError(f"{row['run']}: expected one value of {metric}, received more")
    values = rows["value"].to_numpy(dtype="float64")
    if not values.size:
        return _Summary(None, math.nan, math.nan)
    return _Summary(values.size, float(values.mean()), float(values.std(ddof=1)) if values.size > 1 else math.nan)


def _status(diverged: list[str], seeds: int) -> str:
    """What became of the seeds of one λ, in words."""
    if not seeds:
        return "missing"
    if not diverged:
        return "ok"
    return diverged[0] if seeds == 1 else f"diverged in {len(diverged)} of {seeds} seeds"


def _reference_values(reference: pd.DataFrame) -> dict[Hashable, float]:
    """The paper's values over all its tables.

    Those of flows are found by (dataset, prior, λ, classifier of the generated images, metric), those of classifiers of
    real images by (dataset, classifier, augmentation, metric).
    """
    values: dict[Hashable, float] = {}
    for row in reference.dropna(subset=["value"]).to_dict("records"):
        if not (row["prior"] or row["classifier"]):
            continue  # a cited work, found by its name
        key: tuple[str, ...] = (row["dataset"], row["classifier"], row["augmentation"], row["metric"])
        if row["prior"]:
            key = (row["dataset"], row["prior"], format_weight(row["lambda"]), row["classifier"], row["metric"])
        if values.setdefault(key, row["value"]) != row["value"]:
            where = ", ".join(key[:-1])
            raise TableError(f"reference: {row['metric']} of {where} is both {values[key]} and {row['value']}")
    return values
