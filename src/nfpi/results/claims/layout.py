"""Formatted tables of claims and of their comparisons, and their files."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pandas as pd

from nfpi.config.claims import DIVERGENCE
from nfpi.config.metrics import find_metric
from nfpi.results.claims.judging import COLUMNS
from nfpi.results.numbers import format_number, typeset_weight
from nfpi.results.recorded.csv_files import read_csv
from nfpi.results.tables.layout import describe_correction
from nfpi.results.tables.markup import TextTable, make_number_column, make_text_column, write_tables

_TITLE = "Claims, and whether the runs support them"
_TITLE_OF_PAPER = "Claims of the paper, and whether the runs support them"
CLAIMS = "claims"
"""Name of the files, without suffix."""

VerdictRow = dict[str, Any]
"""A row of the verdicts."""


def write_claims(verdicts: pd.DataFrame, folder: str | os.PathLike[str]) -> None:
    """Write verdicts as claims.csv (full precision), .md, .tex and .html, either all of them or none."""
    write_tables(verdicts, folder, CLAIMS, lay_out_claims(verdicts))


def read_claims(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read the verdicts of a claims.csv.

    Raises:
        CsvError: a column is missing or of another type.
    """
    return read_csv(path, COLUMNS)


def lay_out_claims(verdicts: pd.DataFrame) -> list[tuple[str, TextTable]]:
    """Lay out the tables of claims and of comparisons, each with its title."""
    verdicts = orient(verdicts)
    rows = verdicts.to_dict("records")
    firsts = verdicts[verdicts["claim"] != verdicts["claim"].shift()].to_dict("records")
    # the title attributes the claims to the paper if each of them names its place in it
    title = _TITLE_OF_PAPER if (verdicts["paper"] != "").all() else _TITLE
    texts = {"Statement": "statement", "In the paper": "paper", "Verdict": "claim_verdict"}
    claims = [
        make_text_column("Claim", map(_name_claim, firsts)),
        *(make_text_column(heading, [row[name] for row in firsts]) for heading, name in texts.items()),
    ]
    papers = [_format_signed(row, row["paper_difference"]) for row in rows]
    comparisons = [
        make_text_column("Claim", map(_name_claim, rows)),
        make_text_column("Compared", map(describe_comparison, rows)),
        make_text_column("Data set", verdicts["dataset"] if has_several_datasets(verdicts) else [""] * len(rows)),
        make_text_column("Metric", map(_describe_metric, rows)),
        make_number_column("Difference", verdicts["difference"], map(format_difference, rows)),
        make_number_column("Paper", verdicts["paper_difference"], papers),
        make_number_column("Threshold", verdicts["threshold"], lambda value: f"{value:g}".replace("-", "−")),
        make_number_column("p", verdicts["p_adjusted"], lambda p: "< 0.001" if p < 0.001 else f"{p:.3f}"),
        make_number_column("Seeds", verdicts["seeds"], map(_format_seeds, rows)),
        make_text_column("Verdict", verdicts["verdict"]),
        make_text_column("Seeds needed", map(_format_seeds_needed, rows)),
    ]
    return [
        (title, TextTable(claims, [False] * len(firsts))),
        (
            "Comparisons that decide the claims",
            TextTable(comparisons, [False] * len(rows), list(_compose_notes(verdicts))),
        ),
    ]


def orient(verdicts: pd.DataFrame) -> pd.DataFrame:
    """Return verdicts with signs such that a positive difference favours the claim.

    A column `threshold` is added, the smallest difference that supports the claim.
    """
    sign = verdicts["direction"].map(lambda direction: -1.0 if direction == "less" else 1.0)
    bounds = verdicts[["low", "high"]].mul(sign, axis=0)
    margin = verdicts["smallest_effect"]
    return verdicts.assign(
        difference=verdicts["difference"] * sign,
        low=bounds.min(axis=1),
        high=bounds.max(axis=1),
        paper_difference=verdicts["paper_difference"] * sign,
        threshold=margin.where(verdicts["direction"] != "not_less", -margin),
    )


def has_several_datasets(verdicts: pd.DataFrame) -> bool:
    """Return whether the comparisons are on several data sets; if so, each is shown with its data set."""
    return len(verdicts["dataset"].unique()) > 1


# ---- comparisons, oriented ------------------------------------------------------------------------------------


def describe_comparison(row: VerdictRow) -> str:
    """Return e.g. `(A, λ = 10⁴) − B`; the side claimed to be larger comes first."""
    texts = []
    for side in ("second", "first") if row["direction"] == "less" else ("first", "second"):
        text = _describe_side(row, side)
        is_compound = " + " in text or not math.isnan(row[f"{side}_lambda"])
        texts.append(f"({text})" if is_compound else text)
    return " − ".join(texts)


def _describe_side(row: VerdictRow, side: str) -> str:
    name, weight = row[side], row[f"{side}_lambda"]
    if not name:
        return f"{row[f'{side}_value']:g}"
    return name if math.isnan(weight) else f"{name}, λ = {typeset_weight(weight)}"


def format_difference(row: VerdictRow) -> str:
    """Return e.g. `+2.1 [+0.4, +3.8]`, or an empty string if unknown."""
    difference, low, high = (_format_signed(row, row[name]) for name in ("difference", "low", "high"))
    return f"{difference} [{low}, {high}]" if low else difference


def _format_signed(row: VerdictRow, value: float) -> str:
    """Format a difference with the decimals of the metric or of the smallest effect, whichever are more."""
    exponent = Decimal(repr(float(row["smallest_effect"]))).normalize().as_tuple().exponent
    return format_number(value, max(find_metric(row["metric"]).decimals, -int(exponent)), signed=True)


def _format_seeds(row: VerdictRow) -> str:
    """Return e.g. `10`, or `8 of 10` if some seeds have no value."""
    return f"{row['seeds']}" if row["seeds"] == row["planned_seeds"] else f"{row['seeds']} of {row['planned_seeds']}"


def _name_claim(row: VerdictRow) -> str:
    return str(row["number"]) if row["number"] else str(row["claim"])


def _format_seeds_needed(row: VerdictRow) -> str:
    low, high = row["seeds_needed_low"], row["seeds_needed_high"]
    if pd.isna(low):
        return ""
    if pd.isna(high):
        return f"{low} or more"
    return f"{low} to {high}" if low < high else f"{low}"


def _describe_metric(row: VerdictRow) -> str:
    entry = find_metric(row["metric"])
    return f"{entry.label} ({entry.unit})" if entry.unit else entry.label


def _compose_notes(verdicts: pd.DataFrame) -> Iterator[str]:
    """Yield the notes on the comparisons."""
    yield (
        "Difference: mean over the seeds that all compared rows have, with its unadjusted 95 % interval; accuracies "
        "are those of the test split, and a positive difference favours the claim. Threshold: the smallest difference "
        "that supports the claim."
    )
    if verdicts["seeds_needed_low"].notna().any():
        yield (
            "Seeds needed: the number of seeds in all that would detect, with a power of 80 %, a difference as small "
            "as the threshold (if that is 0, the observed one), for both bounds of the 95 % interval of the standard "
            "deviation over seeds."
        )
    if verdicts["p_adjusted"].notna().any():
        yield "p: two-sided, adjusted by Holm's method over the comparisons of a claim."
    corrected = (verdicts["split_ratio"] > 0) & (verdicts["seeds"] > 1)
    if corrected.any():
        tested = (verdicts["test"] == "paired t") & (verdicts["seeds"] > 1)
        yield describe_correction(verdicts, corrected, tested)
    if (verdicts["direction"] == "not_less").any():
        yield "A negative threshold is one of non-inferiority: the claim holds if the whole interval lies above it."
    on_images = (verdicts["test"] == "McNemar") & (verdicts["metric"] != DIVERGENCE)
    if on_images.any():
        yield "Verdicts from one seed concern only that seed: their intervals only include the choice of test images."
    on_dataset = " on {dataset}" if has_several_datasets(verdicts) else ""
    diverged = [
        f"{row[f'{side}_diverged']} of {row['planned_seeds']} seeds of {_describe_side(row, side)}"
        f"{on_dataset.format(**row)} diverged."
        for row in verdicts.to_dict("records")
        for side in ("first", "second")
        if row[f"{side}_diverged"]
    ]
    yield from dict.fromkeys(diverged)
