"""The rows of tables that the claims of a preset name, with the runs behind each."""

from __future__ import annotations

from nfpi.config import ComparedRow, Config
from nfpi.config.metrics import ACCURACIES
from nfpi.results.rows import TableRow
from nfpi.runs import Run
from nfpi.workflow.tables import table_rows


def claim_rows(config: Config) -> dict[str, list[TableRow]]:
    """The rows that the claims are judged by, in the order of each table, by its name.

    Where a claim leaves λ to a choice, these are all rows of the experiment that it may fall on.
    """
    found: dict[str, list[TableRow]] = {}
    for claim in config.claims.values():
        for row in (row for comparison in claim.comparisons for row in comparison.rows):
            assert row.table is not None
            found.setdefault(row.table, []).extend(_rows_of(config, row))
    return {table: [row for row in table_rows(config, table) if row in named] for table, named in found.items()}


def runs_of_claims(config: Config) -> list[Run]:
    """The runs whose metrics the claims are judged by."""
    rows = (row for rows in claim_rows(config).values() for row in rows)
    return list(dict.fromkeys(run for row in rows for run in row.runs))


def runs_of_tests(config: Config) -> list[Run]:
    """The runs of which a test reads the prediction for each image."""
    found: list[Run] = []
    for claim in config.claims.values():
        for comparison in claim.comparisons:
            for row in comparison.rows if comparison.needs_predictions(len(config.seeds)) else ():
                of_flow = ACCURACIES[comparison.metric] == "flow"
                for line in _rows_of(config, row):
                    found += line.flow_runs if of_flow else line.classifier_runs
    return list(dict.fromkeys(found))


def _rows_of(config: Config, asked: ComparedRow) -> list[TableRow]:
    """The rows of one side of a comparison, λ ascending."""
    assert asked.table is not None
    experiments = config.tables[asked.table].experiments
    index = asked.index_in(dict(enumerate(experiments)))
    rows = [row for row in table_rows(config, asked.table) if row.experiment == index]
    match asked.weight:
        case "best" | "inner_best":
            return rows
        case "min":
            return rows[:1]
        case "max":
            return rows[-1:]
        case weight:
            return [row for row in rows if (row.weight or 0.0) == weight]
