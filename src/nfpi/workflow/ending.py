"""The end of a call: its tables, the paths of tables and figures, and the page of results."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

from nfpi.runtime.faults import format_error
from nfpi.workflow.plan import Plan
from nfpi.workflow.targets import CLAIMS, Targets
from nfpi.workflow.terminal import OURS

COSTS = "costs"
"""Target of the table of hours and memory."""
_FORMS = "(and .csv, .tex, .html)"


def show_results(logger: logging.Logger, targets: Targets, requested: Collection[str]) -> None:
    """Print the requested tables and verdicts, and the paths of their files and figures, if they exist.

    A call with `--until` or `--omit-from` does not make all of them.

    Args:
        logger: Snakemake's logger.
        targets: targets of the preset.
        requested: targets of the call; empty: all.
    """
    config = targets.plan.config
    chosen = [name for name in targets.names if not requested or name in requested or "all" in requested]
    shown = [("table", targets.table(name)["markdown"], _FORMS) for name in chosen if name in config.tables]
    if COSTS in requested:
        shown.insert(0, ("costs", f"{targets.plan.layout.root.as_posix()}/{COSTS}.md", "(and .csv)"))
    files: list[str] = []
    if CLAIMS in chosen:
        shown.append(("claims", targets.claims()["markdown"], _FORMS))
        files.append(targets.claims()["png"])
    drawn = [figure for name in chosen if name in config.tables for figure in config.list_table_figures(name)]
    for figure in dict.fromkeys([*(name for name in chosen if name in config.figures), *drawn]):
        files += [file for file in targets.figure(figure).values() if file.endswith(".png")]
    shown = [(kind, path, forms) for kind, path, forms in shown if Path(path).is_file()]
    lines = [line for _, path, _ in shown for line in ("", *_read_lines(path))]
    paths = [f"{kind + ':':8}{path} {forms}" for kind, path, forms in shown]
    paths += [f"figure: {file}" for file in files if Path(file).is_file()]
    if paths:
        logger.info("\n".join([*lines, "", *paths]), extra=OURS)


def write_page_at_end(logger: logging.Logger, plan: Plan) -> None:
    """Write the page of the preset from the present results and print its path.

    No job depends on the page: an error is one line, and does not change how the call ends.

    Args:
        logger: Snakemake's logger.
        plan: settings and paths of the call.
    """
    root = plan.layout.root
    if not root.is_dir():
        return
    try:
        from nfpi.page.products import describe_preset, write_descriptions  # slow: imports pandas and matplotlib
        from nfpi.page.write import write_page

        write_descriptions(root, describe_preset(plan.config))
        logger.info(f"page:   {write_page(root)}", extra=OURS)
    except Exception as error:
        logger.error(f"The page of results was not written: {format_error(error)}", extra=OURS)


def _read_lines(path: str) -> list[str]:
    """Read the lines of a file; none if it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8").rstrip().splitlines()
    except OSError:
        return []
