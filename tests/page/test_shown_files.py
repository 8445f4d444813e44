"""Files of a table or figure whose name begins another's."""

from __future__ import annotations

from nfpi.page.descriptions import FigureDescription
from nfpi.page.products import read_figures, read_tables


def test_files_of_a_table_are_its_own(results):
    results.tabulate("table2.small", "a smaller one")
    tables = read_tables(results.root, {})
    assert [table.name for table in tables] == ["table2", "table2.small"]
    for table in tables:
        assert table.files == [f"tables/{table.name}.{form}" for form in ("csv", "html", "md", "tex")]


def test_files_of_a_figure_are_its_own(results):
    results.draw("samples.small")
    (results.root / "figures/samples.csv").touch()
    described = {name: FigureDescription(pictures=[name]) for name in ("samples", "samples.small")}
    samples, small, *_ = read_figures(results.root, described)
    assert samples.files == ["figures/samples.csv", "figures/samples.png"]
    assert small.files == ["figures/samples.small.png"]
