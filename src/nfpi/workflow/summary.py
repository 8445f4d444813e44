"""The summary at the end of a successful call: its tables, and the paths of tables and figures."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

from nfpi.workflow.targets import CLAIMS, Targets

COSTS = "costs"
"""Target of the table of hours and memory."""


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
    figures = [name for name in chosen if name in config.figures]
    lines: list[str] = []
    paths: list[tuple[str, str]] = []
    if COSTS in requested:
        file = f"{targets.plan.layout.root.as_posix()}/{COSTS}.md"
        lines += _read_text(file).rstrip().splitlines()
        paths += [("costs", f"{file} (and .csv)")] if lines else []
    for name in chosen:
        if name in config.tables:
            files = targets.table(name)
            if Path(files["markdown"]).is_file():
                lines += ["", *_read_text(files["markdown"]).rstrip().splitlines()]
                paths.append(("table", f"{files['markdown']} (and .csv, .tex, .html)"))
            figures += config.list_table_figures(name)
    files = targets.claims()
    if CLAIMS in chosen and Path(files["markdown"]).is_file():
        lines += ["", *_read_text(files["markdown"]).rstrip().splitlines()]
        paths += [("claims", f"{files['markdown']} (and .csv, .tex, .html)"), ("figure", files["png"])]
    for figure in dict.fromkeys(figures):
        files = targets.figure(figure)
        paths += [("figure", file) for file in files.values() if file.endswith(".png") and Path(file).is_file()]
    if paths:
        logger.info("\n".join([*lines, "", *(f"{kind + ':':8}{path}" for kind, path in paths)]))


def _read_text(path: str) -> str:
    """Read a file; empty if it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""
