"""The table rows that the claims of a preset compare, and their runs."""

from __future__ import annotations

from nfpi.config import ComparedRow, Config
from nfpi.config.metrics import ACCURACIES
from nfpi.results.tables.rows import TableRow, list_table_rows
from nfpi.runs import Run


def select_claimed_rows(config: Config) -> dict[str, list[TableRow]]:
    """Return the rows that the claims compare, by table, in the order of the table.

    Where λ is chosen by validation, these are the rows of all λ of the experiment.
    """
    found: dict[str, list[TableRow]] = {}
    for claim in config.claims.values():
        for row in (row for comparison in claim.comparisons for row in comparison.rows):
            assert row.table is not None
            found.setdefault(row.table, []).extend(_select_rows_of_side(config, row))
    return {table: [row for row in list_table_rows(config, table) if row in named] for table, named in found.items()}


def list_claimed_runs(config: Config) -> list[Run]:
    """Return the runs whose metrics the claims compare."""
    rows = (row for rows in select_claimed_rows(config).values() for row in rows)
    return list(dict.fromkeys(run for row in rows for run in row.runs))


def list_runs_compared_by_image(config: Config) -> list[Run]:
    """Return the runs whose predictions are compared image by image."""
    found: list[Run] = []
    for claim in config.claims.values():
        for comparison in claim.comparisons:
            if not comparison.needs_predictions(len(config.seeds)):
                continue
            is_of_flow = ACCURACIES[comparison.metric] == "flow"
            for row in comparison.rows:
                for table_row in _select_rows_of_side(config, row):
                    found += table_row.flow_runs if is_of_flow else table_row.classifier_runs
    return list(dict.fromkeys(found))


def _select_rows_of_side(config: Config, side: ComparedRow) -> list[TableRow]:
    """Return the table rows of one side of a comparison, by ascending λ."""
    assert side.table is not None
    experiments = config.tables[side.table].experiments
    index = side.find_index(dict(enumerate(experiments)))
    rows = [row for row in list_table_rows(config, side.table) if row.experiment == index]
    match side.weight:
        case "best" | "inner_best":
            return rows
        case "min":
            return rows[:1]
        case "max":
            return rows[-1:]
        case weight:
            return [row for row in rows if (row.weight or 0.0) == weight]
