"""Tables as files: csv with full precision, markdown and LaTeX for people."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pandas as pd

from nfpi.config.metrics import Metric, metric
from nfpi.results.csv_files import write_csv
from nfpi.results.tables import TableError, metrics_of_table, table_columns
from nfpi.runs import format_weight
from nfpi.runtime.files import write_atomically, written_together


def write_table(frame: pd.DataFrame, folder: str | os.PathLike[str], name: str, title: str) -> None:
    """Write a table of results as `name`.csv (full precision), `name`.md and `name`.tex: all of them or none.

    Raises:
        TableError: a column is missing.
    """
    texts = {"md": to_markdown(frame, title), "tex": to_latex(frame, title)}
    with written_together():
        write_csv(frame, Path(folder) / f"{name}.csv")
        for suffix, text in texts.items():
            write_atomically(Path(folder) / f"{name}.{suffix}", text)


def to_markdown(frame: pd.DataFrame, title: str) -> str:
    """The table as GitHub markdown: title, table, and a line that says how to read it.

    Raises:
        TableError: a column is missing.
    """
    columns, rows = _layout(frame, _MARKDOWN)
    header = [column.heading for column in columns]
    lines = [header, ["---:" if column.is_numeric else ":---" for column in columns], *rows]
    grid = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    heading = f"**{_MARKDOWN.escape(_one_line(title))}**\n\n" if title.strip() else ""
    return f"{heading}{grid}\n\n{_legend(frame)}\n"


def to_latex(frame: pd.DataFrame, title: str) -> str:
    r"""The table as a LaTeX `tabular` for ``\input``; it needs the package booktabs and no other.

    Raises:
        TableError: a column is missing.
    """
    columns, rows = _layout(frame, _LATEX)
    alignment = "".join("r" if column.is_numeric else "l" for column in columns)
    lines = [f"% {_one_line(title)}", rf"\begin{{tabular}}{{{alignment}}}", r"\toprule"]
    lines += [" & ".join(column.heading for column in columns) + r" \\", r"\midrule"]
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


@dataclass(frozen=True)
class _Markup:
    """How a cell is written: escaped text, bold, a power of ten, ±, the name of λ, and the better direction."""

    escape: Callable[[str], str]
    bold: Callable[[str], str]
    times_power: Callable[[str, int], str]
    plus_minus: str
    weight: str
    arrows: Mapping[bool | None, str]


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
    arrows={True: " ↑", False: " ↓"},
)
_LATEX = _Markup(
    escape=lambda text: "".join(_LATEX_SPECIAL.get(character, character) for character in text),
    bold=lambda text: rf"\textbf{{{text}}}",
    times_power=lambda mantissa, exponent: _latex_power(mantissa, exponent),
    plus_minus=r"\(\pm\)",
    weight=r"\(\lambda\)",
    arrows={True: r" \(\uparrow\)", False: r" \(\downarrow\)"},
)


def _latex_power(mantissa: str, exponent: int) -> str:
    """A power of ten as text, for mathematics would not turn bold in a bold cell."""
    sign = r"\(-\)" if exponent < 0 else ""
    return mantissa.replace("·", r"\(\cdot\)") + rf"10\textsuperscript{{{sign}{abs(exponent)}}}"


@dataclass(frozen=True)
class _Column:
    """A column for people: its heading, its cells, and whether they are numbers."""

    heading: str
    cells: list[str]
    is_numeric: bool = False


def _layout(frame: pd.DataFrame, markup: _Markup) -> tuple[list[_Column], list[list[str]]]:
    """Columns and rows of cells. A column that would be empty all the way down is left out."""
    shown = _metrics(frame)
    columns = [*_columns_of_runs(frame, markup)]
    for entry in shown:
        columns += _columns_of_metric(frame, entry, markup, with_direction=len({e.higher_is_better for e in shown}) > 1)
    if (~frame["status"].isin(["ok", "cited"])).any():
        columns.append(_text_column(markup, "Status", frame["status"].replace(["ok", "cited"], "")))
    kept = [column for column in columns if any(column.cells)]
    rows = [
        [markup.bold(cell) if strong and cell else cell for cell in cells]
        for cells, strong in zip(zip(*(column.cells for column in kept), strict=True), _in_bold(frame), strict=True)
    ]
    return kept, rows


def _metrics(frame: pd.DataFrame) -> list[Metric]:
    """The metrics of a table of results, which the frame must be."""
    names = metrics_of_table(frame.columns)
    missing = [name for name in table_columns(names) if name not in frame.columns]
    if missing or not names:
        raise TableError(f"expected a table of results, column {missing[0] if missing else 'of a metric'} is missing")
    return [metric(name) for name in names]


def _columns_of_runs(frame: pd.DataFrame, markup: _Markup) -> Iterator[_Column]:
    """What rows are about; names that all rows share, or that their labels stand for, are left out."""
    yield _text_column(markup, "", frame["row"])
    yield _text_column(markup, "Data set", frame["dataset"])
    own = frame[frame["status"] != "cited"]
    if own.loc[own["flow"] != "", "flow"].nunique() > 1:
        yield _text_column(markup, "Flow", frame["flow"])
    for name in ("prior", "classifier", "augmentation"):
        if own[name].nunique() > 1 and not frame["row"].all():
            yield _text_column(markup, name.capitalize(), frame[name])
    weights = ["" if pd.isna(weight) else _weight(weight, markup) for weight in frame["lambda"]]
    yield _Column(markup.weight, weights, is_numeric=True)


def _columns_of_metric(
    frame: pd.DataFrame, entry: Metric, markup: _Markup, *, with_direction: bool
) -> Iterator[_Column]:
    """Ours, the paper's, and the difference."""
    name, label = entry.name, markup.escape(entry.label)
    unit = f" ({markup.escape(entry.unit)})" if entry.unit else ""
    arrow = markup.arrows.get(entry.higher_is_better, "") if with_direction else ""
    ours = [
        _value(mean, std, n, entry.decimals, markup)
        for mean, std, n in zip(frame[name], frame[f"{name}_std"], frame[f"{name}_seeds"], strict=True)
    ]
    differences = ["" if pd.isna(value) else f"{value:+.{entry.decimals}f}" for value in frame[f"{name}_difference"]]
    yield _Column(f"{label}{unit}{arrow}", ours, is_numeric=True)
    yield _Column(f"{label}, paper", [_number(value) for value in frame[f"paper_{name}"]], is_numeric=True)
    yield _Column(f"{label}, difference", differences, is_numeric=True)


def _text_column(markup: _Markup, heading: str, texts: pd.Series) -> _Column:
    return _Column(heading, [markup.escape(str(text)) for text in texts])


def _value(mean: float, std: float, n: int, decimals: int, markup: _Markup) -> str:
    """`98.3 ± 0.4 (n = 3)`, or nothing."""
    if pd.isna(mean):
        return ""
    spread = "" if pd.isna(std) else f" {markup.plus_minus} {std:.{decimals}f}"
    return f"{mean:.{decimals}f}{spread}" + ("" if pd.isna(n) else f" (n = {n})")


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
    names = metrics_of_table(frame.columns)
    spread = frame[[f"{name}_std" for name in names]].notna().any(axis=None)
    sentences = ["Mean ± standard deviation over n seeds." if spread else "One run a row (n = 1 seed)."]
    if _in_bold(frame).any():
        sentences.append("Bold: the λ that is best on the validation split.")
    if frame["best"].any() and not _in_bold(frame).any() and frame["lambda"].nunique() > 1:
        sentences.append("λ is the one that is best on the validation split, of those that were tried.")
    if (frame["status"] == "cited").any():
        sentences.append("Rows without λ and seeds are cited, with numbers where a source is known.")
    compared = [name for name in names if frame[f"paper_{name}"].notna().any()]
    if compared:
        in_points = ", in points" if all(metric(name).unit == "%" for name in compared) else ""
        sentences.append(f"Difference: ours − the paper's (large flow, all images, 500 epochs){in_points}.")
    return " ".join(sentences)


def _in_bold(frame: pd.DataFrame) -> pd.Series:
    """The best rows, where there is another one to be better than."""
    rivals = frame.groupby("experiment")["validation"].transform("count") > 1
    return frame["best"] & rivals


def _one_line(title: str) -> str:
    return " ".join(title.split())
