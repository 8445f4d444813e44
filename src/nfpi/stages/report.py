"""Stages from the metrics of many runs to tables and figures, and the benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic_settings import CliPositionalArg

from nfpi.config import Name, PositiveInt, PriorConfig, Table
from nfpi.stages.base import HeavyStage, Stage


class Collect(Stage):
    """Collect the metrics.json of many runs into one table, a value a row."""

    metrics: CliPositionalArg[list[Path]]
    """metrics.json files"""
    root: Path
    """folder that the runs lie under, results/{preset}"""
    output: Path
    """csv file"""

    def run(self) -> None:
        """Read all, write one."""
        from nfpi.metrics import collect, write_csv

        write_csv(collect(self.metrics, self.root), self.output)


class MakeTable(Stage):
    """Make a table of the paper (csv, markdown, LaTeX) from collected metrics, beside the paper's numbers."""

    name: Name
    """name of the table, and of its files"""
    table: Table
    priors: dict[Name, PriorConfig]
    """settings of the priors that the table names"""
    metrics: Path
    """what `collect` wrote"""
    reference: Path
    """the paper's numbers (csv)"""
    output: Path
    """folder"""

    def run(self) -> None:
        """Lay out and write."""
        from nfpi.metrics import read_csv
        from nfpi.tables import accuracy_table, read_reference, write_table

        frame = accuracy_table(read_csv(self.metrics), self.table, read_reference(self.reference), self.priors)
        write_table(frame, self.output, self.name, self.table.title)


class MakeFigure(Stage):
    """Draw a figure (png, pdf)."""

    name: Literal["accuracy_against_weight"]
    metrics: Path
    """csv of the table it is drawn from"""
    output: Path
    """file name without its suffix"""

    def run(self) -> None:
        """Draw and write."""
        from nfpi.figures import accuracy_against_weight, save_figure
        from nfpi.tables import read_table

        save_figure(accuracy_against_weight(read_table(self.metrics)), self.output)


class Benchmark(HeavyStage):
    """Measure what the project is to be fast at, each as a ratio to a named reference in one run."""

    output: Path
    """folder of benchmark.csv and benchmark.md"""
    repeats: PositiveInt = 7
    """runs of each side; medians are given"""

    def run(self) -> None:
        """Measure and write."""
        from nfpi.benchmark import run_benchmarks

        run_benchmarks(self.output, self.repeats)
