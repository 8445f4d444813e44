"""Run `nfpi claims`."""

from __future__ import annotations

from nfpi.config.experiments import TableSettings
from nfpi.figures.claims import draw_claims
from nfpi.figures.drawn import Drawn, save_drawn
from nfpi.results.claims.judging import judge_claims
from nfpi.results.claims.layout import NAME, write_claims
from nfpi.results.claims.sides import Evidence
from nfpi.results.recorded.collect import collect
from nfpi.results.recorded.predictions import read_predictions
from nfpi.results.tables.building import read_reference
from nfpi.results.tables.rows import TableRow
from nfpi.runs import METRICS_FILE, PREDICTIONS_FILE
from nfpi.runtime.files import written_together
from nfpi.stages.options import JudgeClaims


def judge(stage: JudgeClaims) -> None:
    """Compare the rows named by the claims, and write the verdicts."""
    runs = [run for run in stage.list_runs() if (stage.root / run.folder / METRICS_FILE).is_file()]
    evidence = Evidence(
        metrics=collect(runs, stage.root),
        tables={name: TableSettings.model_validate(table) for name, table in stage.tables.items()},
        rows={
            name: [TableRow.from_json(row).with_seeds(stage.seeds) for row in rows] for name, rows in stage.rows.items()
        },
        reference=read_reference(stage.reference),
        read_predictions=lambda run: read_predictions(stage.root / run.folder / PREDICTIONS_FILE),
    )
    verdicts = judge_claims(stage.claims, evidence)
    with written_together():
        write_claims(verdicts, stage.output)
        save_drawn(Drawn({NAME: draw_claims(verdicts)}), stage.output, NAME)
