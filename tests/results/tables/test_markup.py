"""Tables as LaTeX: what LaTeX itself says of those of all presets."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nfpi.config.experiments import TableSettings
from nfpi.config.resolution import resolve
from nfpi.config.settings import Config
from nfpi.results.recorded.runs import COLLECTED_COLUMNS
from nfpi.results.tables.building import accuracy_table
from nfpi.results.tables.layout import to_latex
from nfpi.results.tables.markup import escape_latex
from nfpi.results.tables.rows import list_table_rows

ROOT = Path(__file__).parents[3]
PRESETS = sorted(path.stem for path in (ROOT / "presets").glob("*.yaml"))
DOCUMENT = r"""
\documentclass{article}
\usepackage{booktabs,graphicx}
\begin{document}
%s
\end{document}
"""
LETTERS = "".join(map(chr, [*range(0xC0, 0x180), *range(0x391, 0x3A2), *range(0x3A3, 0x3CA)]))
"""Latin letters of Europe, and Greek ones."""


def tables_of(
    config: Config, table: str, make_metric_rows: Any, reference: pd.DataFrame, *, first_diverged: bool
) -> pd.DataFrame:
    """A table of a preset, as it would be if every run had been measured, or the first had diverged."""
    rows, rng = list_table_rows(config, table), np.random.default_rng(0)
    settings = TableSettings.model_validate(config.tables[table].model_dump(exclude={"experiments"}))
    values: list[dict[str, Any]] = []
    for run in dict.fromkeys(run for row in rows for run in (*row.flow_runs, *row.classifier_runs)):
        names = [name for name in settings.metrics if (name == "cnn_acc") == (run.classifier is not None)]
        if first_diverged and run == rows[0].runs[0]:
            values += make_metric_rows(run, status="diverged: variance of class 2 at iteration 3")
            continue
        of_run = dict(zip(names or settings.metrics, rng.uniform(10, 100, len(settings.metrics)), strict=False))
        values += make_metric_rows(run, **{"validation_nf_acc": 50.0, "validation_top1": 50.0} | of_run)
    metrics = pd.DataFrame(values, columns=list(COLLECTED_COLUMNS)).astype(COLLECTED_COLUMNS)
    return accuracy_table(metrics, settings, reference, rows)


def texts_of(
    preset: str, seeds: list[int], make_metric_rows: Any, reference: pd.DataFrame, *, first_diverged: bool = False
) -> Iterator[str]:
    config = resolve(ROOT / "config.yaml", ROOT / "presets", {"preset": preset, "seeds": seeds}).config
    for name, table in config.tables.items():
        frame = tables_of(config, name, make_metric_rows, reference, first_diverged=first_diverged)
        yield to_latex(frame, table.title)


def compile_latex(body: str, folder: Path) -> str:
    """The log of pdflatex, which must end well."""
    (folder / "document.tex").write_text(DOCUMENT % body, encoding="ascii")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "document.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    return done.stdout


def has_latex() -> bool:
    """Whether pdflatex, booktabs and graphicx are here (Debian's texlive-latex-base and texlive-latex-recommended)."""
    if not shutil.which("pdflatex") or not shutil.which("kpsewhich"):
        return False
    return subprocess.run(["kpsewhich", "booktabs.sty", "graphicx.sty"], capture_output=True).returncode == 0


needs_latex = pytest.mark.skipif(not has_latex(), reason="no pdflatex with booktabs and graphicx")


@needs_latex
@pytest.mark.parametrize(
    ("seeds", "first_diverged"), [([0], False), ([0, 1, 2], True)], ids=["one seed", "three seeds, one diverged"]
)
def test_tables_of_all_presets_compile_and_are_no_wider_than_the_text(
    seeds, first_diverged, make_metric_rows, reference, tmp_path
):
    texts = [
        text
        for preset in PRESETS
        for text in texts_of(preset, seeds, make_metric_rows, reference, first_diverged=first_diverged)
    ]
    assert len(texts) >= 16
    log = compile_latex("\n\n".join(rf"\noindent {text}" for text in texts), tmp_path)
    assert "Overfull" not in log


@needs_latex
def test_a_long_bold_label_is_not_justified(make_config, make_metric_rows, make_frame, reference, tmp_path):
    label = "a label of several words that is broken into lines because it is too long for one"
    config = make_config({"dataset": "digits", "label": label, "lambdas": [10, 100], "classifier": None}, seeds=(0,))
    rows = list_table_rows(config, "t")
    runs = [run for row in rows for run in row.runs]
    found = [make_metric_rows(run, nf_acc=90.0, validation_nf_acc=50.0 + index) for index, run in enumerate(runs)]
    text = to_latex(accuracy_table(make_frame(*found), config.tables["t"], reference, rows), "")
    assert r"\textbf" in text
    assert "Underfull" not in compile_latex(text, tmp_path)


@needs_latex
def test_letters_of_europe_and_greek_ones_need_no_package(tmp_path):
    text = escape_latex(LETTERS + r"a_b&c%d|e\f^~#{}$<>")
    assert text.isascii()
    compile_latex(text, tmp_path)


@needs_latex
@pytest.mark.parametrize("label", ["[12] Swin", "[x]", "*", "* a label of so many words that it is broken into lines"])
def test_a_label_is_no_argument_of_the_command_before(
    label, make_config, make_metric_rows, make_frame, reference, tmp_path
):
    config = make_config(
        *({"dataset": "digits", "label": label, "lambdas": [weight], "classifier": None} for weight in (10, 100)),
        seeds=(0,),
    )
    rows = list_table_rows(config, "t")
    runs = [run for row in rows for run in row.runs]
    # all rows diverged, so that no label is in bold type
    found = [make_metric_rows(run, status="diverged: variance of class 2 at iteration 3") for run in runs]
    text = to_latex(accuracy_table(make_frame(*found), config.tables["t"], reference, rows), "")
    compile_latex(rf"\pdfcompresslevel=0 {text}", tmp_path)
    printed = re.findall(rb"\[\((.*?)\)\]TJ", (tmp_path / "document.pdf").read_bytes())
    assert sum(line.startswith(label.split()[0].encode()) for line in printed) == 2


def test_a_wide_table_is_scaled_to_the_width_of_the_text(make_metric_rows, reference):
    for text in texts_of("paper", [0, 1, 2], make_metric_rows, reference):
        assert text.count(r"\begin{tabular}") == text.count(r"\resizebox{\ifdim\width>\linewidth") == 1
        assert text.count("{") == text.count("}")


def test_a_letter_without_a_name_is_given_by_its_number():
    assert "4E2D" in escape_latex("中")
