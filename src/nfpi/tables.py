"""Tables of accuracies beside the paper's numbers: as CSV, as markdown, as LaTeX.

A table is a list of experiments (:class:`nfpi.config.Table`), a row for each λ. Accuracies are in percent,
differences in percentage points. What is not known is an empty cell.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pandas as pd

from nfpi.config import BASELINE, Experiment, PriorConfig, Table, format_weight
from nfpi.files import write_atomically
from nfpi.metrics import read_csv, write_csv

COLUMNS = {
    "dataset": "str",
    "lambda": "float64",
    "seeds": "Int64",
    "nf_acc": "float64",
    "cnn_acc": "float64",
    "nf_acc_std": "float64",
    "cnn_acc_std": "float64",
    "cnn_seeds": "Int64",
    "validation_nf_acc": "float64",
    "best": "bool",
    "status": "str",
    "prior": "str",
    "paper_nf_acc": "float64",
    "paper_cnn_acc": "float64",
    "nf_acc_difference": "float64",
    "cnn_acc_difference": "float64",
}
"""Columns of an accuracy table, with their types.

`seeds` and `cnn_seeds` count the runs behind a mean, `_std` is the standard deviation over them (n − 1),
`best` marks the best validation NF-Acc of an experiment, `_difference` is ours − the paper's.
"""

REFERENCE_COLUMNS = {
    "table": "str",
    "row": "str",
    "dataset": "str",
    "prior": "str",
    "lambda": "float64",
    "metric": "str",
    "value": "float64",
    "source": "str",
}
"""Columns of the paper's numbers; rows that are no run of ours leave prior and λ empty."""


class TableError(ValueError):
    """Two values for one cell, or a frame that is no accuracy table; the message is one line."""


def accuracy_table(
    metrics: pd.DataFrame, table: Table, reference: pd.DataFrame, priors: Mapping[str, PriorConfig]
) -> pd.DataFrame:
    """NF-Acc and CNN-Acc over seeds, one row for each (data set, prior, λ), beside the paper's.

    Rows keep the order of the experiments; within one, λ ascends. A λ with no leaf has status
    « missing ». Seeds that diverged are left out of the means and counted in `status`. λ = 0 is read from the
    leaf that all priors with the same start share (:data:`nfpi.config.BASELINE`), for ours and the paper's.

    Args:
        metrics: what :func:`nfpi.metrics.collect` returns, in any order.
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
    for experiment in table.experiments:
        if experiment.prior not in priors:
            raise TableError(f"unknown prior '{experiment.prior}' (known: {', '.join(priors)})")
        rows += _experiment_rows(metrics, experiment, BASELINE[priors[experiment.prior].start], known)
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def read_reference(path: str | os.PathLike[str]) -> pd.DataFrame:
    """The paper's numbers (workflow/reference/paper.csv).

    Raises:
        MetricsError: a column is missing or of another type.
    """
    return read_csv(path, REFERENCE_COLUMNS)


def read_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    """An accuracy table that :func:`write_table` wrote as CSV.

    Raises:
        MetricsError: a column is missing or of another type.
    """
    return read_csv(path, COLUMNS)


def write_table(frame: pd.DataFrame, folder: str | os.PathLike[str], name: str, title: str) -> None:
    """Write an accuracy table as `name`.csv (full precision), `name`.md and `name`.tex, each atomically.

    Raises:
        TableError: a column is missing.
    """
    texts = {"md": to_markdown(frame, title), "tex": to_latex(frame, title)}
    write_csv(frame, Path(folder) / f"{name}.csv")
    for suffix, text in texts.items():
        write_atomically(Path(folder) / f"{name}.{suffix}", text)


def to_markdown(frame: pd.DataFrame, title: str) -> str:
    """The table as GitHub markdown: title, table, and a line that says how to read it.

    Raises:
        TableError: a column is missing.
    """
    header, rows = _layout(frame, _MARKDOWN)
    numeric = _numeric_columns(header, _MARKDOWN)
    lines = [header, ["---:" if number else ":---" for number in numeric], *rows]
    grid = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    heading = f"**{_MARKDOWN.escape(_one_line(title))}**\n\n" if title.strip() else ""
    return f"{heading}{grid}\n\n{_legend(frame)}\n"


def to_latex(frame: pd.DataFrame, title: str) -> str:
    r"""The table as a LaTeX `tabular` for ``\input``; it needs the package booktabs and no other.

    Raises:
        TableError: a column is missing.
    """
    header, rows = _layout(frame, _LATEX)
    alignment = "".join("r" if number else "l" for number in _numeric_columns(header, _LATEX))
    lines = [f"% {_one_line(title)}", rf"\begin{{tabular}}{{{alignment}}}", r"\toprule"]
    lines += [" & ".join(header) + r" \\", r"\midrule"]
    lines += [" & ".join(cells) + r" \\" for cells in rows]
    lines += [r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


def weight_parts(weight: float) -> tuple[str, int]:
    """λ exactly, as (mantissa, exponent): 30000 → ("3", 4), but 500 → ("500", 0), as is from 0.01 to 1000."""
    if weight == 0 or 1e-2 <= weight < 1e3:
        return format_weight(weight), 0
    _, digits, exponent = Decimal(repr(float(weight))).normalize().as_tuple()
    mantissa = str(digits[0]) + ("." + "".join(map(str, digits[1:])) if len(digits) > 1 else "")
    return mantissa, int(exponent) + len(digits) - 1


def _experiment_rows(
    metrics: pd.DataFrame,
    experiment: Experiment,
    baseline: str,
    known: Mapping[tuple[str, str, str, str], float],
) -> list[dict[str, object]]:
    """The rows of one experiment."""
    rows: list[dict[str, object]] = []
    for weight in sorted({float(weight) for weight in experiment.lambdas}):
        prior = baseline if weight == 0 else experiment.prior
        leaf = metrics[
            (metrics["dataset"] == experiment.dataset) & (metrics["prior"] == prior) & (metrics["lambda"] == weight)
        ]
        diverged = leaf[leaf["status"] != "ok"].drop_duplicates("seed")
        finished = leaf[~leaf["seed"].isin(diverged["seed"])]
        nf = _over_seeds(finished, "flow", "nf_acc")
        cnn = _over_seeds(finished, "resnet18", "cnn_acc") if experiment.classifier else _over_seeds(leaf[:0], "", "")
        paper = {
            metric: known.get((experiment.dataset, prior, format_weight(weight), metric), math.nan)
            for metric in ("nf_acc", "cnn_acc")
            if metric == "nf_acc" or experiment.classifier
        }
        rows.append(
            {
                "dataset": experiment.dataset,
                "prior": experiment.prior,
                "lambda": weight,
                "seeds": nf.count,
                "nf_acc": nf.mean,
                "nf_acc_std": nf.std,
                "cnn_seeds": cnn.count,
                "cnn_acc": cnn.mean,
                "cnn_acc_std": cnn.std,
                "validation_nf_acc": _over_seeds(finished, "flow", "validation_nf_acc").mean,
                "best": False,
                "status": _status(diverged["status"].tolist(), leaf["seed"].nunique()),
                "paper_nf_acc": paper["nf_acc"],
                "paper_cnn_acc": paper.get("cnn_acc", math.nan),
                "nf_acc_difference": nf.mean - paper["nf_acc"],
                "cnn_acc_difference": cnn.mean - paper.get("cnn_acc", math.nan),
            }
        )
    scored = [row for row in rows if not math.isnan(float(row["validation_nf_acc"]))]  # type: ignore[arg-type]
    if scored:
        max(scored, key=lambda row: row["validation_nf_acc"])["best"] = True  # type: ignore[arg-type, return-value]
    return rows


@dataclass(frozen=True)
class _Summary:
    """Mean and standard deviation of one metric; NaN and no count where unknown."""

    count: int | None
    mean: float
    std: float


def _over_seeds(leaf: pd.DataFrame, stage: str, metric: str) -> _Summary:
    """Mean over seeds, and their standard deviation with n − 1."""
    # A floating-point sum depends on the order of its terms; sorted, it does not depend on that of the files.
    rows = leaf[(leaf["stage"] == stage) & (leaf["metric"] == metric)].sort_values("seed")
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


def _reference_values(reference: pd.DataFrame) -> dict[tuple[str, str, str, str], float]:
    """(dataset, prior, λ, metric) → value, over all tables of the paper."""
    values: dict[tuple[str, str, str, str], float] = {}
    for row in reference.dropna(subset=["lambda", "value"]).to_dict("records"):
        key = (row["dataset"], row["prior"], format_weight(row["lambda"]), row["metric"])
        if values.setdefault(key, row["value"]) != row["value"]:
            dataset, prior, weight, metric = key
            raise TableError(
                f"reference: {metric} of {dataset}, {prior}, λ = {weight} is both {values[key]} and {row['value']}"
            )
    return values


@dataclass(frozen=True)
class _Markup:
    """How a cell is written: escaped text, bold, a power of ten, « ± », and the name of λ."""

    escape: Callable[[str], str]
    bold: Callable[[str], str]
    times_power: Callable[[str, int], str]
    plus_minus: str
    weight: str


_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_LATEX_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "λ": r"\(\lambda\)",
    "±": r"\(\pm\)",
} | {character: f"\\{character}" for character in "&%$#_{}"}

_MARKDOWN = _Markup(
    escape=lambda text: re.sub(r"([\\|*`<\[\]])", r"\\\1", text),
    bold=lambda text: f"**{text}**",
    times_power=lambda mantissa, exponent: mantissa + "10" + str(exponent).translate(_SUPERSCRIPTS),
    plus_minus="±",
    weight="λ",
)
_LATEX = _Markup(
    escape=lambda text: "".join(_LATEX_SPECIAL.get(character, character) for character in text),
    bold=lambda text: rf"\textbf{{{text}}}",
    times_power=lambda mantissa, exponent: _latex_power(mantissa, exponent),
    plus_minus=r"\(\pm\)",
    weight=r"\(\lambda\)",
)


def _latex_power(mantissa: str, exponent: int) -> str:
    """A power of ten as text, for mathematics would not turn bold in a bold cell."""
    sign = r"\(-\)" if exponent < 0 else ""
    return mantissa.replace("·", r"\(\cdot\)") + rf"10\textsuperscript{{{sign}{abs(exponent)}}}"


def _layout(frame: pd.DataFrame, markup: _Markup) -> tuple[list[str], list[list[str]]]:
    """Header and cells. A column that would be empty all the way down is left out, except for NF-Acc."""
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise TableError(f"expected an accuracy table, column {missing[0]} is missing")
    columns = {
        "Data set": [markup.escape(str(name)) for name in frame["dataset"]],
        markup.weight: [_weight(weight, markup) for weight in frame["lambda"]],
        "NF-Acc": _accuracies(frame, "nf_acc", "seeds", markup),
        "NF-Acc, paper": [_number(value) for value in frame["paper_nf_acc"]],
        "CNN-Acc": _accuracies(frame, "cnn_acc", "cnn_seeds", markup),
        "CNN-Acc, paper": [_number(value) for value in frame["paper_cnn_acc"]],
    }
    if frame["prior"].nunique() > 1:
        names = [markup.escape(str(name)) for name in frame["prior"]]
        columns = {"Data set": columns.pop("Data set"), "Prior": names, **columns}
    if (frame["status"] != "ok").any():
        columns["Status"] = [markup.escape(status) if status != "ok" else "" for status in frame["status"]]
    kept = {name: cells for name, cells in columns.items() if any(cells) or name == "NF-Acc"}
    header = [markup.escape(name + " (%)") if "Acc" in name else name for name in kept]
    rows = [
        [markup.bold(cell) if strong and cell else cell for cell in cells]
        for cells, strong in zip(zip(*kept.values(), strict=True), _in_bold(frame), strict=True)
    ]
    return header, rows


def _numeric_columns(header: list[str], markup: _Markup) -> list[bool]:
    """Which columns are set flush right."""
    return [name == markup.weight or "Acc" in name for name in header]


def _accuracies(frame: pd.DataFrame, metric: str, count: str, markup: _Markup) -> list[str]:
    """« 98.3 ± 0.4 (n = 3) », or nothing."""
    cells = []
    for mean, std, n in zip(frame[metric], frame[f"{metric}_std"], frame[count], strict=True):
        spread = "" if pd.isna(std) else f" {markup.plus_minus} {std:.1f}"
        cells.append("" if pd.isna(mean) else f"{mean:.1f}{spread}" + ("" if pd.isna(n) else f" (n = {n})"))
    return cells


def _weight(weight: float, markup: _Markup) -> str:
    """λ for people: 0, 500, 10³, 7.5·10⁶."""
    mantissa, exponent = weight_parts(weight)
    if exponent == 0:
        return mantissa
    return markup.times_power("" if mantissa == "1" else f"{mantissa}·", exponent)


def _number(value: float) -> str:
    """A number with the digits it was given with, or nothing."""
    return "" if pd.isna(value) else format_weight(value)


def _legend(frame: pd.DataFrame) -> str:
    """How to read the table."""
    spread = frame[["nf_acc_std", "cnn_acc_std"]].notna().any(axis=None)
    sentences = ["Mean ± standard deviation over n seeds." if spread else "One run a λ (n = 1 seed)."]
    if _in_bold(frame).any():
        sentences.append("Bold: the λ with the best NF-Acc on the validation split.")
    return " ".join(sentences)


def _in_bold(frame: pd.DataFrame) -> pd.Series:
    """The best rows, where there is another one to be better than."""
    rivals = frame.groupby(["dataset", "prior"])["validation_nf_acc"].transform("count") > 1
    return frame["best"] & rivals


def _one_line(title: str) -> str:
    return " ".join(title.split())
