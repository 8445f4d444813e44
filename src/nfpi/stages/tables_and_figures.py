"""The stages that make tables and figures, and judge claims."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

from pydantic import AfterValidator, BeforeValidator
from pydantic_settings import NoDecode

from nfpi.config.base import Name, Seed
from nfpi.config.claims import Claim
from nfpi.config.experiments import FIGURES, FigureSettings, TableSettings
from nfpi.config.metrics import is_computed
from nfpi.results.tables.rows import TableRow, list_runs_to_compare, list_table_rows, select_claimed_rows
from nfpi.runs import FIGURES_FOLDER, METRICS_FILE, PREDICTIONS_FILE, TABLES_FOLDER, Layout, Run
from nfpi.runtime.divergence import Diverged
from nfpi.stages.base import Stage
from nfpi.stages.jobs import Needs, Planned, Wildcards, keep_first_seed, list_table_metrics
from nfpi.stages.test_classifier import need_metrics

logger = logging.getLogger(__name__)


def _read_json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


T = TypeVar("T")
JsonList = Annotated[list[T], NoDecode, BeforeValidator(_read_json)]
"""A list given as one JSON text, whose escapes pydantic-settings would not read."""


class ResultsStage(Stage):
    """A stage that compares the metrics of many runs with the paper's numbers; runs without metrics are missing."""

    inputs = {"reference": ()}
    many_runs = True

    root: Path
    """folder of the runs, results/{preset}"""
    seeds: list[Seed] = []
    """seeds of all runs; if given, they replace those that the runs name"""
    reference: Path
    """the paper's numbers (csv)"""

    @classmethod
    def select_options(cls, planned: Planned, wildcards: Wildcards) -> dict[str, Any]:
        """Return the options of a job except its inputs."""
        return super().select_options(planned, wildcards) | {"root": planned.root}

    def list_path_options(self, needs: Mapping[str, Sequence[str]]) -> list[str]:
        """Return the words of the command line that name the inputs, and the folder of the runs."""
        return [*super().list_path_options(needs), "--root", self.root.as_posix()]

    def list_runs(self) -> list[Run]:
        """Return all runs, existing or not."""
        raise NotImplementedError

    def find_runs(self) -> list[Run]:
        """Return the runs that have metrics."""
        return [run for run in self.list_runs() if (self.root / run.folder / METRICS_FILE).is_file()]

    def list_inputs(self) -> dict[str, list[Path]]:
        """Return the paper's numbers, and the metrics of the runs that have some."""
        return super().list_inputs() | {"runs": [self.root / run.folder / METRICS_FILE for run in self.find_runs()]}

    def list_needs(self, planned: Planned, wildcards: Wildcards) -> Needs:
        """Return the paper's numbers, and the metrics of the runs."""
        return {"reference": [planned.reference], "runs": [need_metrics(run) for run in self.list_runs()]}


class MakeTable(ResultsStage):
    """Make a table of metrics beside the paper's numbers.

    Writes csv, Markdown, LaTeX and HTML.
    """

    command = "table"
    places = (TABLES_FOLDER,)
    outputs = {"csv": "{name}.csv", "markdown": "{name}.md", "latex": "{name}.tex", "html": "{name}.html"}
    product = "table"
    label = "{name}"
    version = 2
    blocks = {"name": "table", "table": "tables.{table}"}

    name: Name
    """name of the table, and of its files"""
    table: dict[str, Any]
    """title, metrics and cited work of the table"""
    rows: JsonList[TableRow]
    """rows of the table, each with its runs"""

    @classmethod
    def select_options(cls, planned: Planned, wildcards: Wildcards) -> dict[str, Any]:
        """Return the options of a job except paths."""
        table = planned.config.tables[wildcards["table"]]
        return super().select_options(planned, wildcards) | {
            "table": table.model_dump(mode="json", exclude={"experiments"}),
            "rows": keep_first_seed(list_table_rows(planned.config, wildcards["table"])),
            "code": planned.list_digests(wildcards, metrics=list_table_metrics(table)),
        }

    def list_inputs(self) -> dict[str, list[Path]]:
        """Return the paper's numbers, and the metrics and predictions that exist."""
        predictions = [self.root / run.folder / PREDICTIONS_FILE for run in self.list_runs_to_compare()]
        return super().list_inputs() | {"predictions": [path for path in predictions if path.is_file()]}

    def list_needs(self, planned: Planned, wildcards: Wildcards) -> Needs:
        """Return the paper's numbers, the metrics of the runs, and the predictions."""
        predictions = [need_metrics(run, PREDICTIONS_FILE) for run in self.list_runs_to_compare()]
        return super().list_needs(planned, wildcards) | {"predictions": [*predictions]}

    def list_runs(self) -> list[Run]:
        """Return all runs of the table."""
        return list(dict.fromkeys(run for row in self.list_rows() for run in row.runs))

    def list_runs_to_compare(self) -> list[Run]:
        """Return the runs whose predictions are compared image by image."""
        return list_runs_to_compare(self.list_rows(), TableSettings.model_validate(self.table).metrics)

    def list_rows(self) -> list[TableRow]:
        """Return the rows with their runs of all seeds."""
        return [row.with_seeds(self.seeds) for row in self.rows] if self.seeds else self.rows

    def run(self) -> None:
        """Write a table in all its formats."""
        from nfpi.results.recorded.predictions import find_predictions
        from nfpi.results.recorded.runs import collect
        from nfpi.results.tables.building import accuracy_table, read_reference
        from nfpi.results.tables.layout import write_table

        table = TableSettings.model_validate(self.table)
        reference, find = read_reference(self.reference), partial(find_predictions, self.root)
        frame = accuracy_table(collect(self.find_runs(), self.root), table, reference, self.list_rows(), find)
        measured = frame[frame["status"] == "ok"]
        for metric in table.metrics:
            if is_computed(metric) and len(measured) and measured[metric].isna().all():
                again = "-R evaluate test_classifier test_classifier_on_real"
                logger.warning("%s: no run has %s; `snakemake %s %s` computes it", self.name, metric, self.name, again)
        write_table(frame, self.output, self.name, table.title)


class MakeFigure(Stage):
    """Draw a figure, and write its numbers.

    Writes PNG and PDF, and the numbers as csv if the figure has a table.
    """

    command = "figure"
    places = (FIGURES_FOLDER,)
    product = "figure"
    label = "{name}"
    many_runs = True

    name: Annotated[str, AfterValidator(lambda name: FIGURES[name].name)]
    figure: dict[str, Any] = {}
    """settings of the figure"""
    files: dict[str, list[Path]]
    """files that the figure is drawn from"""
    reads: dict[str, dict[str, Any]] = {}
    """other settings that the figure depends on"""

    @classmethod
    def select_options(cls, planned: Planned, wildcards: Wildcards) -> dict[str, Any]:
        """Return the options of a job except paths."""
        name, figure = wildcards["name"], planned.config.figures[wildcards["name"]]
        return super().select_options(planned, wildcards) | {
            "figure": figure.model_dump(mode="json"),
            "reads": {key: block.model_dump(mode="json") for key, block in figure.reads(planned.config).items()},
            "code": planned.digest_files([FIGURES[name].extension]),
        }

    def list_inputs(self) -> dict[str, list[Path]]:
        """Return the files that the figure is drawn from, by their role."""
        return self.files

    def list_needs(self, planned: Planned, wildcards: Wildcards) -> Needs:
        """Return the files that the figure is drawn from, by their role."""
        from nfpi.stages.keys import find_need  # which knows all stages

        files = planned.config.figures[self.name].files(planned.config, Layout(planned.root))
        return {role: [find_need(planned, Path(path)) for path in paths] for role, paths in files.items()}

    def list_path_options(self, needs: Mapping[str, Sequence[str]]) -> list[str]:
        """Return the words of the command line that name the files."""
        return ["--files", json.dumps({role: [*paths] for role, paths in needs.items()})]

    def list_output_paths(self) -> list[Path]:
        """Return the paths of pictures and table."""
        settings = cast("type[FigureSettings]", FIGURES[self.name].settings)
        return [self.output / file for file in settings.output_names(self.name).values()]

    def record_divergence(self, fault: Diverged) -> None:
        """Raise it: a picture records no divergence."""
        raise fault

    def run(self) -> None:
        """Compute, draw and write a figure."""
        from nfpi.figures.drawn import FigureInputs, draw_figure, save_drawn

        drawn = draw_figure(self.name, self.figure, FigureInputs(self.files, self.reads))
        save_drawn(drawn, self.output, self.name)


_IGNORED = {"experiments", "title", "best_only", "metrics", "literature"}
"""settings of a table that claims do not depend on, besides the rows that they compare"""


class JudgeClaims(ResultsStage):
    """Judge the claims of a preset by its runs' metrics.

    Writes csv, Markdown, LaTeX and HTML, and a figure.
    """

    command = "claims"
    outputs = {
        **{"csv": "claims.csv", "markdown": "claims.md", "latex": "claims.tex", "html": "claims.html"},
        **{"png": "claims.png", "pdf": "claims.pdf"},
    }
    places = ("",)
    product = "claims"

    claims: dict[str, Claim]
    """claims, as in a preset"""
    tables: dict[str, dict[str, Any]]
    """settings of the tables that the claims name"""
    rows: dict[str, list[TableRow]]
    """rows of these tables, each with the runs of one seed"""
    seeds: list[Seed]
    """seeds of all runs"""

    @classmethod
    def select_options(cls, planned: Planned, wildcards: Wildcards) -> dict[str, Any]:
        """Return the options of the job except paths."""
        claims, tables = planned.config.claims, planned.config.tables
        rows = select_claimed_rows(planned.config)
        metrics = {comparison.metric for claim in claims.values() for comparison in claim.comparisons}
        return super().select_options(planned, wildcards) | {
            "tables": {name: tables[name].model_dump(mode="json", exclude=_IGNORED) for name in rows},
            "rows": {name: keep_first_seed(of_table) for name, of_table in rows.items()},
            "code": planned.list_digests(wildcards, metrics=sorted(metrics)),
        }

    def list_runs(self) -> list[Run]:
        """Return all runs of the claims."""
        return list(dict.fromkeys(run for rows in self.list_rows().values() for row in rows for run in row.runs))

    def list_rows(self) -> dict[str, list[TableRow]]:
        """Return the rows of each table with their runs of all seeds."""
        return {name: [row.with_seeds(self.seeds) for row in rows] for name, rows in self.rows.items()}

    def run(self) -> None:
        """Compare the rows named by the claims, and write the verdicts."""
        from nfpi.figures.claims import draw_claims
        from nfpi.figures.drawn import Drawn, save_drawn
        from nfpi.results.claims.judging import judge_claims
        from nfpi.results.claims.layout import CLAIMS, write_claims
        from nfpi.results.claims.sides import ClaimData
        from nfpi.results.recorded.predictions import read_predictions
        from nfpi.results.recorded.runs import collect
        from nfpi.results.tables.building import read_reference

        data = ClaimData(
            metrics=collect(self.find_runs(), self.root),
            tables={name: TableSettings.model_validate(table) for name, table in self.tables.items()},
            rows=self.list_rows(),
            reference=read_reference(self.reference),
            read_predictions=lambda run: read_predictions(self.root / run.folder / PREDICTIONS_FILE),
        )
        verdicts = judge_claims(self.claims, data)
        write_claims(verdicts, self.output)
        save_drawn(Drawn({CLAIMS: draw_claims(verdicts)}), self.output, CLAIMS)
