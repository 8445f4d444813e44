"""Stages and commands for tables, figures, claims and costs, the schema of the settings, and the benchmark."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator
from pydantic_settings import CliPositionalArg

from nfpi.config import FIGURES, Claim, Name, PositiveInt, Seed, TableSettings
from nfpi.results.tables.rows import TableRow, list_runs_to_compare
from nfpi.runs import METRICS_FILE, Run
from nfpi.stages.options.base import Command, Stage
from nfpi.stages.options.flow import Evaluate
from nfpi.stages.options.words import JsonList


class Collect(Stage):
    """Collect the metrics of many runs into one table.

    The table has one row per value.
    """

    command = "collect"
    work = "nfpi.stages.results:collect_metrics"
    outputs = {"metrics": "{name}.csv"}
    product = "collected metrics"
    label = "{name}"
    common = None

    name: Name
    """name of the file"""
    runs: JsonList[dict[str, Any]]
    """identities of the runs"""
    seeds: list[Seed] = []
    """seeds of all runs; if given, each run is collected at each of these seeds"""
    root: Path
    """folder of the runs, results/{preset}"""

    def list_input_files(self) -> list[Path]:
        """Return the metrics files of the runs."""
        return [self.root / run.folder / METRICS_FILE for run in self.list_runs()]

    def list_runs(self) -> list[Run]:
        """Return all runs."""
        runs = [Run.from_json(run) for run in self.runs]
        return [replace(run, seed=seed) for run in runs for seed in self.seeds] if self.seeds else runs


class MakeTable(Stage):
    """Make a table of metrics beside the paper's numbers.

    Writes csv, Markdown, LaTeX and HTML.
    """

    command = "table"
    work = "nfpi.stages.results:make_table"
    outputs = {"csv": "{name}.csv", "markdown": "{name}.md", "latex": "{name}.tex", "html": "{name}.html"}
    product = "table"
    label = "{name}"
    common = None

    name: Name
    """name of the table, and of its files"""
    table: dict[str, Any]
    """title, metrics and cited work of the table"""
    rows: JsonList[dict[str, Any]]
    """rows of the table, each with its runs"""
    seeds: list[Seed] = []
    """seeds of all runs; if given, they replace those in `rows`"""
    metrics: Path
    """output of `collect`"""
    reference: Path
    """the paper's numbers (csv)"""
    root: Path | None = None
    """folder of the runs, results/{preset}; a table whose runs have a single seed compares their predictions"""

    def list_input_files(self) -> list[Path]:
        """Return the metrics, and the predictions that exist."""
        rows = self.list_rows() if self.root is not None else []
        runs = list_runs_to_compare(rows, TableSettings.model_validate(self.table).metrics)
        predictions = [Path(self.root or "") / run.folder / Evaluate.outputs["predictions"] for run in runs]
        return [self.metrics, *(path for path in predictions if path.is_file())]

    def list_rows(self) -> list[TableRow]:
        """Return the rows with their runs of all seeds."""
        rows = [TableRow.from_json(row) for row in self.rows]
        return [row.with_seeds(self.seeds) for row in rows] if self.seeds else rows


class MakeFigure(Stage):
    """Draw a figure, and write its numbers.

    Writes PNG and PDF, and the numbers as csv if the figure has a table.
    """

    command = "figure"
    work = "nfpi.stages.figures:make_figure"
    label = "{name}"
    inputs = {"files": ()}
    common = None

    name: Annotated[str, AfterValidator(FIGURES.check_name)]
    figure: dict[str, Any] = {}
    """settings of the figure"""
    files: dict[str, list[Path]]
    """files that the figure is drawn from"""
    reads: dict[str, dict[str, Any]] = {}
    """other settings that the figure depends on"""


class JudgeClaims(Stage):
    """Judge the claims of a preset by its runs' metrics.

    Writes csv, Markdown, LaTeX and HTML, and a figure.
    """

    command = "claims"
    work = "nfpi.stages.claims:judge"
    outputs = {
        **{"csv": "claims.csv", "markdown": "claims.md", "latex": "claims.tex", "html": "claims.html"},
        **{"png": "claims.png", "pdf": "claims.pdf"},
    }
    product = "claims"
    common = None

    claims: dict[str, Claim]
    """claims, as in a preset"""
    tables: dict[str, dict[str, Any]]
    """settings of the tables that the claims name"""
    rows: dict[str, list[dict[str, Any]]]
    """rows of these tables, each with the runs of one seed"""
    seeds: list[Seed]
    """seeds of all runs"""
    root: Path
    """folder of the runs, results/{preset}; runs that do not exist count as missing"""
    reference: Path
    """the paper's numbers (csv)"""

    def list_input_files(self) -> list[Path]:
        """Return the metrics of the runs that exist."""
        return [path for run in self.list_runs() if (path := self.root / run.folder / METRICS_FILE).is_file()]

    def list_runs(self) -> list[Run]:
        """Return all runs of the claims, existing or not."""
        rows = [TableRow.from_json(row).with_seeds(self.seeds) for rows in self.rows.values() for row in rows]
        return list(dict.fromkeys(run for row in rows for run in row.runs))


class WritePage(Command):
    """Write the page of a folder of results, index.html.

    The page is a single file of all present results: tables, figures, and each run with its curves, samples and
    predictions. Labels and units of your own metrics need `nfpi --extensions FILE page …`.
    """

    command = "page"
    work = "nfpi.stages.page:write"

    results: CliPositionalArg[Path]
    """results/{preset}"""


class Compare(Command):
    """Print the differences between two folders of results.

    Compares settings, versions, numbers and runs. Prints tables on a terminal, else tab-separated lines.
    """

    command = "compare"
    work = "nfpi.stages.compare:compare"

    first: CliPositionalArg[Path]
    """results/{preset}"""
    second: CliPositionalArg[Path]
    """folder results/{preset} that `first` is compared with"""
    times: bool = False
    """also compare metrics in hours and seconds, which differ whenever they are measured again"""


class ShowCosts(Command):
    """Print the time and memory of the jobs behind tables.

    Prints wall-clock and CPU hours and memory by table, stage and device, from the records in the folder of results.
    Runs nothing.
    """

    command = "costs"
    work = "nfpi.stages.costs:show_costs"

    results: CliPositionalArg[Path]
    """results/{preset}"""
    output: Path | None = None
    """folder for costs.csv and costs.md"""


class WriteSchema(Stage):
    """Write the JSON schema of config.yaml, for editors."""

    command = "schema"
    work = "nfpi.stages.schema:write_schema"
    outputs = {"schema": "config.schema.json"}


class Benchmark(Stage):
    """Measure speed, as ratios to named references.

    Measures both sides of a ratio in one run. A figure shows costs against images, classes, dimensions and levels.
    """

    command = "benchmark"
    work = "nfpi.stages.speed:benchmark"
    outputs = {
        **{"csv": "benchmark.csv", "markdown": "benchmark.md"},
        **{"scaling": "scaling.csv", "png": "scaling.png", "pdf": "scaling.pdf"},
    }

    repeats: PositiveInt = 7
    """measurements of each side, whose median is taken; at most 3 for a start-up, one for the fit of K = 1000"""
