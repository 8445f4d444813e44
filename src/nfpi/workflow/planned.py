"""What a call of the workflow was asked for, for `nfpi status`."""

from __future__ import annotations

from collections.abc import Collection

from nfpi.results.planned import write_planned
from nfpi.results.settings import StoredSettings, write_settings
from nfpi.workflow.claims import runs_of_claims
from nfpi.workflow.plan import Plan
from nfpi.workflow.tables import table_rows
from nfpi.workflow.targets import CLAIMS


def note_planned(plan: Plan, requested: Collection[str]) -> None:
    """Leave in the folder of results which runs the tables and claims of the call are made from.

    Args:
        plan: of the call.
        requested: targets of the call; none: all of them. A call for files and figures alone leaves nothing.
    """
    names = [name for name in plan.config.tables if not requested or "all" in requested or name in requested]
    runs = [run for name in names for row in table_rows(plan.config, name) for run in row.runs]
    runs += runs_of_claims(plan.config) if CLAIMS in requested else []
    if runs:
        write_planned(plan.layout.root, runs)


def note_settings(plan: Plan) -> None:
    """Leave the settings of the call in the folder of results, for `nfpi costs` and `nfpi evidence`."""
    write_settings(plan.layout.root, StoredSettings.of(plan.preset, plan.config))
