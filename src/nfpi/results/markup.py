"""Tables as files: CSV with full precision, markdown and LaTeX for people."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pandas as pd

from nfpi.config.resolution import format_weight
from nfpi.runtime.files import write_atomically
from nfpi.results.records import write_csv
from nfpi.results.tables import COLUMNS, METRICS, TableError


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
    """Header and cells. A column that would be empty all the way down is left out."""
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise TableError(f"expected an accuracy table, column {missing[0]} is missing")
    columns = {"": [markup.escape(str(label)) for label in frame["row"]]}
    columns["Data set"] = [markup.escape(str(name)) for name in frame["dataset"]]
    for name, heading in (("prior", "Prior"), ("classifier", "Classifier"), ("augmentation", "Augmentation")):
        if frame.loc[frame["status"] != "cited", name].nunique() > 1 and not frame["row"].all():
            columns[heading] = [markup.escape(str(cell)) for cell in frame[name]]
    columns[markup.weight] = ["" if pd.isna(weight) else _weight(weight, markup) for weight in frame["lambda"]]
    for metric, heading in METRICS.items():
        columns[heading] = _accuracies(frame, metric, f"{metric}_seeds", markup)
        columns[f"{heading}, paper"] = [_number(value) for value in frame[f"paper_{metric}"]]
        columns[f"{heading}, difference"] = [_difference(value) for value in frame[f"{metric}_difference"]]
    if (~frame["status"].isin(["ok", "cited"])).any():
        columns["Status"] = [
            markup.escape(status) if status not in ("ok", "cited") else "" for status in frame["status"]
        ]
    kept = {name: cells for name, cells in columns.items() if any(cells)}
    header = [markup.escape(name + " (%)") if name in METRICS.values() else name for name in kept]
    rows = [
        [markup.bold(cell) if strong and cell else cell for cell in cells]
        for cells, strong in zip(zip(*kept.values(), strict=True), _in_bold(frame), strict=True)
    ]
    return header, rows


def _numeric_columns(header: list[str], markup: _Markup) -> list[bool]:
    """Which columns are set flush right."""
    headings = tuple(map(markup.escape, METRICS.values()))
    return [name == markup.weight or name.startswith(headings) for name in header]


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


def _difference(value: float) -> str:
    """Ours − the paper's with its sign, or nothing."""
    return "" if pd.isna(value) else f"{value:+.1f}"


def _legend(frame: pd.DataFrame) -> str:
    """How to read the table."""
    spread = frame[[f"{metric}_std" for metric in METRICS]].notna().any(axis=None)
    sentences = ["Mean ± standard deviation over n seeds." if spread else "One run a row (n = 1 seed)."]
    if _in_bold(frame).any():
        sentences.append("Bold: the λ that is best on the validation split.")
    if frame["best"].any() and not _in_bold(frame).any() and frame["lambda"].nunique() > 1:
        sentences.append("λ is the one that is best on the validation split, of those that were tried.")
    if (frame["status"] == "cited").any():
        sentences.append("Rows without λ and seeds are cited, with numbers where a source is known.")
    if frame[[f"paper_{metric}" for metric in METRICS]].notna().any(axis=None):
        sentences.append("Difference: ours − the paper's (large flow, all images, 500 epochs), in points.")
    return " ".join(sentences)


def _in_bold(frame: pd.DataFrame) -> pd.Series:
    """The best rows, where there is another one to be better than."""
    rivals = frame.groupby("experiment")["validation"].transform("count") > 1
    return frame["best"] & rivals


def _one_line(title: str) -> str:
    return " ".join(title.split())
