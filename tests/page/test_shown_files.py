"""Files of a table or figure whose name begins another's, and those of claims."""

from __future__ import annotations

import pandas as pd

from nfpi.page.write import read_figures, read_shown_claims, read_tables
from nfpi.results.claims.judging import COLUMNS
from nfpi.results.claims.layout import write_claims


def test_files_of_a_table_are_its_own(results):
    results.tabulate("table2.small", "a smaller one")
    tables = read_tables(results.root, None)
    assert [table.name for table in tables] == ["table2", "table2.small"]
    for table in tables:
        assert table.files == [f"tables/{table.name}.{form}" for form in ("csv", "html", "md", "tex")]


def test_files_of_a_figure_are_its_own(results):
    results.draw("samples.small")
    (results.root / "figures/samples.csv").touch()
    samples, small = read_figures(results.root, None)[2:]
    assert samples.files == ["figures/samples.csv", "figures/samples.png"]
    assert small.files == ["figures/samples.small.png"]


def test_verdicts_are_shown_without_their_figure(tmp_path):
    row = {name: "" if kind == "str" else 1 for name, kind in COLUMNS.items()}
    row |= {"metric": "nf_acc", "first": "ours", "second": "theirs", "verdict": "holds", "claim_verdict": "replicated"}
    write_claims(pd.DataFrame([row]).astype(COLUMNS), tmp_path)
    shown = read_shown_claims(tmp_path)
    assert "holds" in {cell for _, table in shown.tables for cells in table.rows for cell in cells}
    assert "claims.png" in "".join(shown.faults)
