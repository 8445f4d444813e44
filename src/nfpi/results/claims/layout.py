"""Formatted tables of claims and of their comparisons, and their files."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd

from nfpi.config.claims import DIVERGENCE
from nfpi.config.metrics import Metric
from nfpi.results.claims.judging import COLUMNS
from nfpi.results.markup.files import MARKDOWN, table_to_markdown
from nfpi.results.markup.html import HTML, load_templates
from nfpi.results.markup.latex import LATEX, table_to_latex
from nfpi.results.metrics.registry import find_metric
from nfpi.results.recorded.csv_files import read_csv, write_csv
from nfpi.results.tables.layout import Column, Markup, Table, format_number, typeset_weight
from nfpi.results.tables.shared import describe_correction
from nfpi.runtime.files import write_atomically, written_together

_TITLE = "Claims, and whether the runs support them"
_TITLE_OF_PAPER = "Claims of the paper, and whether the runs support them"
COMPARISONS_TITLE = "Comparisons that decide the claims"
NAME = "claims"
"""Name of the files, without suffix."""

_GROUPS = {
    "Difference": ("Difference", "Paper", "Threshold"),
    "Test": ("p", "Seeds", "Verdict", "Seeds needed"),
}
"""Groups of columns in LaTeX."""


def write_claims(verdicts: pd.DataFrame, folder: str | os.PathLike[str]) -> None:
    """Write verdicts as claims.csv (full precision), .md, .tex and .html, either all of them or none."""
    with written_together():
        write_csv(verdicts, Path(folder) / f"{NAME}.csv")
        for suffix, text in (
            ("md", claims_to_markdown(verdicts)),
            ("tex", claims_to_latex(verdicts)),
            ("html", claims_to_html(verdicts)),
        ):
            write_atomically(Path(folder) / f"{NAME}.{suffix}", text)


def read_claims(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read the verdicts of a claims.csv.

    Raises:
        CsvError: a column is missing or of another type.
    """
    return read_csv(path, COLUMNS)


def claims_to_markdown(verdicts: pd.DataFrame) -> str:
    """Return the tables of claims and of comparisons as GitHub Markdown."""
    parts = []
    for title, table in lay_out_claims(verdicts, MARKDOWN):
        parts += [f"**{title}**", table_to_markdown(table), " ".join(table.notes)]
    return "\n\n".join(filter(None, parts)) + "\n"


def claims_to_latex(verdicts: pd.DataFrame) -> str:
    r"""Return the tables of claims and of comparisons as LaTeX, see :func:`nfpi.results.markup.latex.to_latex`."""
    (title, claims), (comparisons_title, comparisons) = lay_out_claims(verdicts, LATEX)
    grouped = [_assign_group(column) for column in comparisons.columns]
    sizes = Counter(column.group for column in grouped)
    # a column alone in its group would be headed by the group
    columns = [new if sizes[new.group] > 1 else old for old, new in zip(comparisons.columns, grouped, strict=True)]
    comparisons = replace(comparisons, columns=columns)
    return f"{table_to_latex(claims, title)}\n\\bigskip\n\n{table_to_latex(comparisons, comparisons_title)}"


def claims_to_html(verdicts: pd.DataFrame) -> str:
    """Return the tables of claims and of comparisons as a self-contained HTML document."""
    tables = lay_out_claims(verdicts, HTML)
    return load_templates("nfpi.results.markup").get_template("document.html").render(tables=tables, title=tables[0][0])


def lay_out_claims(verdicts: pd.DataFrame, markup: Markup) -> list[tuple[str, Table]]:
    """Lay out the tables of claims and of comparisons, each with its title."""
    rows = verdicts.to_dict("records")
    first_of_claim = [row for index, row in enumerate(rows) if index == 0 or row["claim"] != rows[index - 1]["claim"]]
    claims = [
        _make_text_column("Claim", first_of_claim, _name_of_claim, markup),
        _make_text_column("Statement", first_of_claim, lambda row: row["statement"], markup),
        _make_text_column("In the paper", first_of_claim, lambda row: row["paper"], markup),
        _make_text_column("Verdict", first_of_claim, lambda row: row["claim_verdict"], markup),
    ]
    with_dataset = has_several_datasets(verdicts)
    comparisons = [
        _make_text_column("Claim", rows, _name_of_claim, markup),
        Column(
            "Compared",
            [describe_comparison(row, markup) for row in rows],
            [describe_comparison(row, MARKDOWN) for row in rows],
        ),
        _make_text_column("Data set", rows, lambda row: row["dataset"] if with_dataset else "", markup),
        _make_text_column("Metric", rows, lambda row: _format_label(find_metric(row["metric"])), markup),
        _make_number_column("Difference", rows, format_difference, lambda row: orient_difference(row)[0], markup),
        _make_number_column(
            "Paper",
            rows,
            lambda row: _format_signed(row, orient_paper_difference(row)),
            orient_paper_difference,
            markup,
        ),
        _make_number_column("Threshold", rows, _format_threshold, compute_threshold, markup),
        _make_number_column("p", rows, _format_p_value, lambda row: row["p_adjusted"], markup),
        _make_number_column("Seeds", rows, _format_seeds, lambda row: row["seeds"], markup),
        _make_text_column("Verdict", rows, lambda row: row["verdict"], markup),
        _make_number_column("Seeds needed", rows, _format_seeds_needed, lambda row: row["seeds_needed"], markup),
    ]
    return [
        (_choose_title(verdicts), Table(_drop_empty_columns(claims), [False] * len(first_of_claim), [])),
        (
            COMPARISONS_TITLE,
            Table(_drop_empty_columns(comparisons), [False] * len(rows), list(_compose_notes(verdicts, markup))),
        ),
    ]


def has_several_datasets(verdicts: pd.DataFrame) -> bool:
    """Return whether the comparisons are on several data sets; if so, each is shown with its data set."""
    return len(verdicts["dataset"].unique()) > 1


def _choose_title(verdicts: pd.DataFrame) -> str:
    """Return the title, which attributes the claims to the paper if each of them names its place in the paper."""
    return _TITLE_OF_PAPER if (verdicts["paper"] != "").all() else _TITLE


# ---- comparisons, with signs such that a positive difference favours the claim --------------------------------------


def orient_difference(row: dict[str, Any]) -> tuple[float, float, float]:
    """Return the difference and its interval, with signs such that a positive difference favours the claim."""
    difference, low, high = (float(row[name]) for name in ("difference", "low", "high"))
    return (-difference, -high, -low) if row["direction"] == "less" else (difference, low, high)


def orient_paper_difference(row: dict[str, Any]) -> float:
    """Return the paper's difference with the sign of :func:`orient_difference`."""
    return -float(row["paper_difference"]) if row["direction"] == "less" else float(row["paper_difference"])


def describe_comparison(row: dict[str, Any], markup: Markup) -> str:
    """Return e.g. `(A, λ = 10⁴) − B`; the side claimed to be larger comes first."""
    texts = []
    for side in ("second", "first") if row["direction"] == "less" else ("first", "second"):
        text = _describe_side(row, side, markup)
        is_compound = " + " in text or not math.isnan(row[f"{side}_lambda"])
        texts.append(f"({text})" if is_compound else text)
    return f" {markup.escape('−')} ".join(texts)


def _describe_side(row: dict[str, Any], side: str, markup: Markup) -> str:
    name, weight = row[side], row[f"{side}_lambda"]
    if not name:
        return markup.escape(f"{row[f'{side}_value']:g}")
    at = "" if math.isnan(weight) else f", {markup.weight} = {typeset_weight(weight, markup)}"
    return f"{markup.escape(name)}{at}"


def count_difference_decimals(row: dict[str, Any]) -> int:
    """Return the number of decimals of the metric or of the smallest effect, whichever is larger."""
    exponent = Decimal(repr(float(row["smallest_effect"]))).normalize().as_tuple().exponent
    return max(find_metric(row["metric"]).decimals, -int(exponent))


def compute_threshold(row: dict[str, Any]) -> float:
    """Return the smallest difference, with the sign of :func:`orient_difference`, that supports the claim."""
    smallest = float(row["smallest_effect"])
    return -smallest if row["direction"] == "not_less" else smallest


def format_difference(row: dict[str, Any]) -> str:
    """Return e.g. `+2.1 [+0.4, +3.8]`, or an empty string if unknown."""
    difference, low, high = orient_difference(row)
    interval = "" if math.isnan(low) else f" [{_format_signed(row, low)}, {_format_signed(row, high)}]"
    return _format_signed(row, difference) + interval


def _format_signed(row: dict[str, Any], value: float) -> str:
    if math.isnan(value):
        return ""
    return format_number(value, count_difference_decimals(row), signed=True)


def _format_threshold(row: dict[str, Any]) -> str:
    return f"{compute_threshold(row):g}".replace("-", "−")


def _format_p_value(row: dict[str, Any]) -> str:
    value = float(row["p_adjusted"])
    if math.isnan(value):
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _format_seeds_needed(row: dict[str, Any]) -> str:
    return "" if pd.isna(row["seeds_needed"]) else f"{row['seeds_needed']} seeds"


def _format_seeds(row: dict[str, Any]) -> str:
    """Return e.g. `10`, or `8 of 10` if some seeds have no value."""
    return f"{row['seeds']}" if row["seeds"] == row["planned_seeds"] else f"{row['seeds']} of {row['planned_seeds']}"


def _name_of_claim(row: dict[str, Any]) -> str:
    return str(row["number"]) if row["number"] else str(row["claim"])


def _format_label(entry: Metric) -> str:
    return f"{entry.label} ({entry.unit})" if entry.unit else entry.label


# ---- columns and notes --------------------------------------------------------------------------------------


def _make_text_column(
    heading: str, rows: list[dict[str, Any]], text: Callable[[dict[str, Any]], str], markup: Markup
) -> Column:
    texts = [text(row) for row in rows]
    return Column(heading, [markup.escape(cell) for cell in texts], [cell or None for cell in texts])


def _make_number_column(
    heading: str,
    rows: list[dict[str, Any]],
    text: Callable[[dict[str, Any]], str],
    value: Callable[[dict[str, Any]], float],
    markup: Markup,
) -> Column:
    cells = [_escape_number(text(row), markup) for row in rows]
    keys: list[float | str | None] = [None if pd.isna(value(row)) else float(value(row)) for row in rows]
    return Column(heading, cells, keys, is_numeric=True)


def _escape_number(text: str, markup: Markup) -> str:
    """Escape minus and less-than signs of a number, but not the brackets of intervals."""
    return text.replace("−", markup.escape("−")).replace("<", markup.escape("<"))


def _assign_group(column: Column) -> Column:
    """Assign a column to its group; groups of a table that is too wide are placed below one another."""
    group = next((group for group, headings in _GROUPS.items() if column.heading in headings), "")
    heading = "ours" if column.heading == group else column.heading.lower()
    return replace(column, heading=heading, group=group) if group else column


def _drop_empty_columns(columns: list[Column]) -> list[Column]:
    return [column for column in columns if any(column.cells)]


def _compose_notes(verdicts: pd.DataFrame, markup: Markup) -> Iterator[str]:
    """Yield the notes on the comparisons; labels of rows are escaped here for Markdown only, see :class:`Markup`."""
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
    escaped = replace(MARKDOWN, escape=markup.escape_note)
    for row in verdicts.to_dict("records"):
        for side in ("first", "second"):
            if row[f"{side}_diverged"]:
                at = _describe_side(row, side, escaped)
                at += f" on {row['dataset']}" if has_several_datasets(verdicts) else ""
                diverged[f"{row[f'{side}_diverged']} of {row['planned_seeds']} seeds of {at} diverged."] = None
    yield from diverged
