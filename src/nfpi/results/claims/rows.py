"""The rows of tables that claims compare, and their runs."""

from __future__ import annotations

from collections.abc import Sequence

from nfpi.config.claims import ComparedRow
from nfpi.config.settings import Config
from nfpi.results.tables.rows import TableRow, find_compared_rows, list_table_rows, select_at_weight
from nfpi.runs import Run


def select_claimed_rows(config: Config) -> dict[str, list[TableRow]]:
    """Return the rows of tables that the claims compare, by table, in the order of the table.

    Where λ is chosen by validation, these are the rows of all λ of the experiment.
    """
    claimed: dict[str, list[TableRow]] = {}
    for claim in config.claims.values():
        for side in (row for comparison in claim.comparisons for row in comparison.rows):
            claimed.setdefault(str(side.table), []).extend(_select_rows_of_side(config, side))
    return {table: [row for row in list_table_rows(config, table) if row in named] for table, named in claimed.items()}


def list_claimed_runs(config: Config) -> list[Run]:
    """Return the runs whose metrics the claims compare."""
    return [run for rows in select_claimed_rows(config).values() for row in rows for run in row.runs]


def list_runs_compared_by_image(config: Config) -> list[Run]:
    """Return the runs whose predictions the claims compare image by image."""
    found: list[Run] = []
    pairs = [(claim, comparison) for claim in config.claims.values() for comparison in claim.comparisons]
    for claim, comparison in pairs:
        if comparison.needs_predictions(len(set(config.seeds) - set(claim.without_seeds))):
            for row in (row for side in comparison.rows for row in _select_rows_of_side(config, side)):
                found += row.runs_of(comparison.metric)
    return found


def _select_rows_of_side(config: Config, side: ComparedRow) -> Sequence[TableRow]:
    """Return the table rows of one side of a comparison, by ascending λ; for `inner_best`, those of all λ."""
    rows = find_compared_rows(side, list_table_rows(config, str(side.table)))
    return rows if side.weight == "inner_best" else select_at_weight(rows, side.weight)
