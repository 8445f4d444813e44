"""The stage that judges the claims of a preset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nfpi.config.base import Seed
from nfpi.config.claims import Claim
from nfpi.config.experiments import TableSettings
from nfpi.results.claims.rows import select_claimed_rows
from nfpi.results.tables.rows import TableRow
from nfpi.runs import METRICS_FILE, PREDICTIONS_FILE, Run
from nfpi.stages.base import Stage
from nfpi.stages.measure_samples import need_metrics
from nfpi.stages.needs import Needs
from nfpi.stages.planned import Planned, Wildcards, keep_first_seed

_IGNORED = {"experiments", "title", "best_only", "metrics", "literature"}
"""settings of a table that claims do not depend on, besides the rows that they compare"""


class JudgeClaims(Stage):
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
    inputs = {"reference": ()}
    many_runs = True

    claims: dict[str, Claim]
    """claims, as in a preset"""
    tables: dict[str, dict[str, Any]]
    """settings of the tables that the claims name"""
    rows: dict[str, list[TableRow]]
    """rows of these tables, each with the runs of one seed"""
    seeds: list[Seed]
    """seeds of all runs"""
    root: Path
    """folder of the runs, results/{preset}; runs that do not exist count as missing"""
    reference: Path
    """the paper's numbers (csv)"""

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
            "root": planned.root,
        }

    def list_inputs(self) -> dict[str, list[Path]]:
        """Return the paper's numbers, and the metrics of the runs that exist."""
        metrics = [self.root / run.folder / METRICS_FILE for run in self.list_runs()]
        return super().list_inputs() | {"runs": [path for path in metrics if path.is_file()]}

    def list_needs(self, planned: Planned, wildcards: Wildcards) -> Needs:
        """Return the paper's numbers, and the metrics of the runs."""
        return {"reference": [planned.reference], "runs": [need_metrics(run) for run in self.list_runs()]}

    def list_path_options(self, needs: Mapping[str, Sequence[str]]) -> list[str]:
        """Return the words of the command line that name the inputs, and the folder of the runs."""
        return [*super().list_path_options(needs), "--root", self.root.as_posix()]

    def list_runs(self) -> list[Run]:
        """Return all runs of the claims, existing or not."""
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

        runs = [run for run in self.list_runs() if (self.root / run.folder / METRICS_FILE).is_file()]
        data = ClaimData(
            metrics=collect(runs, self.root),
            tables={name: TableSettings.model_validate(table) for name, table in self.tables.items()},
            rows=self.list_rows(),
            reference=read_reference(self.reference),
            read_predictions=lambda run: read_predictions(self.root / run.folder / PREDICTIONS_FILE),
        )
        verdicts = judge_claims(self.claims, data)
        write_claims(verdicts, self.output)
        save_drawn(Drawn({CLAIMS: draw_claims(verdicts)}), self.output, CLAIMS)
