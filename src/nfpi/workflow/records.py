"""Records of a call in the folder of results: its planned runs and its settings."""

from __future__ import annotations

from collections.abc import Collection

from nfpi.results.recorded.planned import write_planned
from nfpi.results.recorded.settings import StoredSettings, write_settings
from nfpi.results.tables.rows import list_table_rows
from nfpi.workflow.claims import list_claimed_runs
from nfpi.workflow.plan import Plan
from nfpi.workflow.targets import CLAIMS


def record_planned_runs(plan: Plan, requested: Collection[str]) -> None:
    """Write the list of the runs behind the requested tables, their figures and the claims, for `nfpi status`.

    Args:
        plan: settings and paths of the call.
        requested: targets of the call; empty: all. If none of them is a table, the figure of a table or the claims, the
            list of an earlier call is kept.
    """
    names = [
        name
        for name in plan.config.tables
        if not requested or not {"all", name, *plan.config.list_table_figures(name)}.isdisjoint(requested)
    ]
    runs = [run for name in names for row in list_table_rows(plan.config, name) for run in row.runs]
    runs += list_claimed_runs(plan.config) if CLAIMS in requested else []
    if runs:
        write_planned(plan.layout.root, runs)


def record_settings(plan: Plan) -> None:
    """Write the settings of the call, for `nfpi costs` and `nfpi evidence`."""
    write_settings(plan.layout.root, StoredSettings.of(plan.preset, plan.config))
