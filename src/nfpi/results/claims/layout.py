"""Formatted tables of claims and of their comparisons, and their files."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pandas as pd

from nfpi.config.claims import DIVERGENCE
from nfpi.results.claims.judging import COLUMNS
from nfpi.results.metrics import find_metric
from nfpi.results.recorded.csv_files import read_csv
from nfpi.results.tables.markup import tables_to_markdown, write_tables
from nfpi.results.tables.notes import describe_correction
from nfpi.results.tables.table import Table, format_number, make_number_column, make_text_column, typeset_weight

_TITLE = "Claims, and whether the runs support them"
_TITLE_OF_PAPER = "Claims of the paper, and whether the runs support them"
NAME = "claims"
"""Name of the files, without suffix."""

Comparison = dict[str, Any]
"""A row of the verdicts."""


def write_claims(verdicts: pd.DataFrame, folder: str | os.PathLike[str]) -> None:
    """Write verdicts as claims.csv (full precision), .md, .tex and .html, either all of them or none."""
    write_tables(verdicts, folder, NAME, lay_out_claims(verdicts))


def read_claims(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read the verdicts of a claims.csv.

    Raises:
        CsvError: a column is missing or of another type.
    """
    return read_csv(path, COLUMNS)


def claims_to_markdown(verdicts: pd.DataFrame) -> str:
    """Return the tables of claims and of comparisons as GitHub Markdown."""
    return tables_to_markdown(lay_out_claims(verdicts))


def lay_out_claims(verdicts: pd.DataFrame) -> list[tuple[str, Table]]:
    """Lay out the tables of claims and of comparisons, each with its title."""
    rows = verdicts.to_dict("records")
    firsts = verdicts[verdicts["claim"] != verdicts["claim"].shift()].to_dict("records")
    # the title attributes the claims to the paper if each of them names its place in it
    title = _TITLE_OF_PAPER if (verdicts["paper"] != "").all() else _TITLE
    with_dataset = has_several_datasets(verdicts)
    claims = [
        make_text_column("Claim", map(_name_claim, firsts)),
        *(
            make_text_column(heading, [row[name] for row in firsts])
            for heading, name in (("Statement", "statement"), ("In the paper", "paper"), ("Verdict", "claim_verdict"))
        ),
    ]
    papers, thresholds = map(orient_paper_difference, rows), map(compute_threshold, rows)
    comparisons = [
        make_text_column("Claim", map(_name_claim, rows)),
        make_text_column("Compared", map(describe_comparison, rows)),
        make_text_column("Data set", verdicts["dataset"] if with_dataset else [""] * len(rows)),
        make_text_column("Metric", map(_describe_metric, rows)),
        make_number_column(
            "Difference", [orient_difference(row)[0] for row in rows], [format_difference(row) for row in rows]
        ),
        make_number_column("Paper", papers, [_format_signed(row, orient_paper_difference(row)) for row in rows]),
        make_number_column("Threshold", thresholds, lambda value: f"{value:g}".replace("-", "−")),
        make_number_column("p", verdicts["p_adjusted"], lambda p: "< 0.001" if p < 0.001 else f"{p:.3f}"),
        make_number_column("Seeds", verdicts["seeds"], map(_format_seeds, rows)),
        make_text_column("Verdict", verdicts["verdict"]),
        make_number_column(
            "Seeds needed", verdicts["seeds_needed"].astype("float64"), lambda seeds: f"{seeds:.0f} seeds"
        ),
    ]
    return [
        (title, Table(claims, [False] * len(firsts))),
        ("Comparisons that decide the claims", Table(comparisons, [False] * len(rows), list(_compose_notes(verdicts)))),
    ]


def has_several_datasets(verdicts: pd.DataFrame) -> bool:
    """Return whether the comparisons are on several data sets; if so, each is shown with its data set."""
    return len(verdicts["dataset"].unique()) > 1


# ---- comparisons, with signs such that a positive difference favours the claim --------------------------------------


def orient_difference(row: Comparison) -> tuple[float, float, float]:
    """Return the difference and its interval, with signs such that a positive difference favours the claim."""
    difference, low, high = (float(row[name]) for name in ("difference", "low", "high"))
    return (-difference, -high, -low) if row["direction"] == "less" else (difference, low, high)


def orient_paper_difference(row: Comparison) -> float:
    """Return the paper's difference with the sign of :func:`orient_difference`."""
    return -float(row["paper_difference"]) if row["direction"] == "less" else float(row["paper_difference"])


def describe_comparison(row: Comparison) -> str:
    """Return e.g. `(A, λ = 10⁴) − B`; the side claimed to be larger comes first."""
    texts = []
    for side in ("second", "first") if row["direction"] == "less" else ("first", "second"):
        text = _describe_side(row, side)
        is_compound = " + " in text or not math.isnan(row[f"{side}_lambda"])
        texts.append(f"({text})" if is_compound else text)
    return " − ".join(texts)


def _describe_side(row: Comparison, side: str) -> str:
    name, weight = row[side], row[f"{side}_lambda"]
    if not name:
        return f"{row[f'{side}_value']:g}"
    return name if math.isnan(weight) else f"{name}, λ = {typeset_weight(weight)}"


def count_difference_decimals(row: Comparison) -> int:
    """Return the number of decimals of the metric or of the smallest effect, whichever is larger."""
    exponent = Decimal(repr(float(row["smallest_effect"]))).normalize().as_tuple().exponent
    return max(find_metric(row["metric"]).decimals, -int(exponent))


def compute_threshold(row: Comparison) -> float:
    """Return the smallest difference, with the sign of :func:`orient_difference`, that supports the claim."""
    smallest = float(row["smallest_effect"])
    return -smallest if row["direction"] == "not_less" else smallest


def format_difference(row: Comparison) -> str:
    """Return e.g. `+2.1 [+0.4, +3.8]`, or an empty string if unknown."""
    difference, low, high = orient_difference(row)
    interval = "" if math.isnan(low) else f" [{_format_signed(row, low)}, {_format_signed(row, high)}]"
    return _format_signed(row, difference) + interval


def _format_signed(row: Comparison, value: float) -> str:
    return format_number(value, count_difference_decimals(row), signed=True)


def _format_seeds(row: Comparison) -> str:
    """Return e.g. `10`, or `8 of 10` if some seeds have no value."""
    return f"{row['seeds']}" if row["seeds"] == row["planned_seeds"] else f"{row['seeds']} of {row['planned_seeds']}"


def _name_claim(row: Comparison) -> str:
    return str(row["number"]) if row["number"] else str(row["claim"])


def _describe_metric(row: Comparison) -> str:
    entry = find_metric(row["metric"])
    return f"{entry.label} ({entry.unit})" if entry.unit else entry.label


def _compose_notes(verdicts: pd.DataFrame) -> Iterator[str]:
    """Yield the notes on the comparisons."""
    yield (
        "Difference: mean over the seeds that all compared rows have, with its unadjusted 95 % interval; accuracies "
        "are those of the test split, and a positive difference favours the claim. Threshold: the smallest difference "
        "that supports the claim."
    )
    if verdicts["seeds_needed"].notna().any():
        yield "Seeds needed: an estimate of the number of seeds in all that would decide the comparison."
    if verdicts["p_adjusted"].notna().any():
        yield "p: two-sided, adjusted by Holm's method over the comparisons of a claim."
    corrected = (verdicts["split_ratio"] > 0) & (verdicts["seeds"] > 1)
    if corrected.any():
        tested = (verdicts["test"] == "paired t") & (verdicts["seeds"] > 1)
        yield describe_correction(verdicts, corrected, tested)
    if (verdicts["direction"] == "not_less").any():
        yield "A negative threshold is one of non-inferiority: the claim holds if the whole interval lies above it."
    on_images = verdicts["test"].isin(["McNemar", "bootstrap"]) & (verdicts["metric"] != DIVERGENCE)
    if (on_images & (verdicts["seeds"] == 1)).any():
        yield "Verdicts from one seed concern only that seed: their intervals only include the choice of test images."
    diverged: dict[str, None] = {}
    for row in verdicts.to_dict("records"):
        for side in ("first", "second"):
            if row[f"{side}_diverged"]:
                at = _describe_side(row, side)
                at += f" on {row['dataset']}" if has_several_datasets(verdicts) else ""
                diverged[f"{row[f'{side}_diverged']} of {row['planned_seeds']} seeds of {at} diverged."] = None
    yield from diverged
