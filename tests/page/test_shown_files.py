"""Files of a table or figure whose name begins another's, and those of claims."""

from __future__ import annotations

import pandas as pd

from nfpi.config.settings import Config
from nfpi.page.write import read_figures, read_shown_claims, read_tables
from nfpi.results.claims.judging import COLUMNS
from nfpi.results.claims.layout import write_claims

from .conftest import CONFIG


def test_files_of_a_table_and_of_a_figure_are_their_own(results):
    results.tabulate("table2.small", "a smaller one")
    results.draw("samples.small")
    (results.root / "figures/samples.csv").touch()
    config = Config.model_validate(CONFIG)
    (table,) = read_tables(results.root, config)
    assert table.files == [f"tables/table2.{form}" for form in ("csv", "html", "md", "tex")]
    _, samples = read_figures(results.root, config)
    assert samples.files == ["figures/samples.csv", "figures/samples.png"]


def test_verdicts_are_shown_without_their_figure(tmp_path):
    row = {name: "" if kind == "str" else 1 for name, kind in COLUMNS.items()}
    row |= {"metric": "nf_acc", "first": "ours", "second": "theirs", "verdict": "holds", "claim_verdict": "replicated"}
    write_claims(pd.DataFrame([row]).astype(COLUMNS), tmp_path)
    shown = read_shown_claims(tmp_path)
    assert "holds" in {cell for _, table in shown.tables for cells in table.rows for cell in cells}
    assert "claims.png" in "".join(shown.faults)
