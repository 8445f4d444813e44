"""Stages from the metrics of many runs to tables and figures, and the benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import model_validator
from pydantic_settings import CliPositionalArg

from nfpi.config.settings import FixedPointPrior, PriorConfig
from nfpi.config.base import Name, PositiveInt
from nfpi.config.experiments import ResidualsFigure, Table
from nfpi.stages.base import HeavyStage, Stage

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
        from nfpi.results.records import collect, write_csv

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
        from nfpi.results.records import read_csv
        from nfpi.results.tables import accuracy_table, read_reference
        from nfpi.results.markup import write_table

        frame = accuracy_table(read_csv(self.metrics), self.table, read_reference(self.reference), self.priors)
        write_table(frame, self.output, self.name, self.table.title)


class MakeFigure(Stage):
    """Draw a figure (png, pdf) from tables."""

    inputs: CliPositionalArg[list[Path]]
    """csv files: a table (accuracy_against_weight), what `embed` wrote (figure1, figure1_full), what `map-convergence`
    wrote (convergence_map), or the iterations of a fit for each λ of the figure, in their order (residuals)"""
    name: Literal["accuracy_against_weight", "figure1", "figure1_full", "residuals", "convergence_map"]
    prior: FixedPointPrior = FixedPointPrior()  # before `figure`, which has a prior too: else it is no option
    """residuals only: settings of the prior that was fitted"""
    figure: ResidualsFigure | None = None
    """residuals only: its settings"""
    output: Path
    """file name without its suffix"""

    @model_validator(mode="after")
    def _as_many_inputs_as_needed(self) -> MakeFigure:
        if (self.figure is not None) != (self.name == "residuals"):
            raise ValueError("figure: expected its settings for residuals, and for residuals only")
        expected = len(self.figure.lambdas) if self.figure is not None else 1
        if len(self.inputs) != expected:
            raise ValueError(f"inputs: expected {expected} for {self.name}, received {len(self.inputs)}")
        return self

    def run(self) -> None:
        """Draw and write."""
        from nfpi.figures.style import save_figure

        save_figure(self._draw(), self.output)

    def _draw(self) -> Figure:
        from nfpi import figures
        from nfpi.results.records import read_csv
        from nfpi.results.tables import read_table

        first = self.inputs[0]
        if self.name == "accuracy_against_weight":
            return figures.accuracy_against_weight(read_table(first))
        if self.name == "convergence_map":
            return figures.convergence_map(read_csv(first, figures.CONVERGENCE_COLUMNS))
        if self.figure is None:
            variant: Literal["diagonal", "full"] = "full" if self.name == "figure1_full" else "diagonal"
            return figures.class_gaussians(read_csv(first, figures.EMBEDDING_COLUMNS), variant)
        return figures.residuals(
            [
                (weight, read_csv(file, figures.RESIDUAL_COLUMNS))
                for weight, file in zip(self.figure.lambdas, self.inputs, strict=True)
            ],
            dataset=self.figure.dataset,
            tolerance=self.prior.tolerance,
            max_iterations=self.prior.max_iterations,
        )


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
