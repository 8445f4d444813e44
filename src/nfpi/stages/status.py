"""The command that shows the progress of runs."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from pydantic_settings import CliPositionalArg

from nfpi.results.metrics.registry import find_metric
from nfpi.results.recorded.progress import Progress, find_roots, read_progress
from nfpi.runs import Run
from nfpi.stages.base import Command

_HEADING = ("run", "state", "result", "time (h)", "detail")
_SHOWN = {"nf_acc": "validation_nf_acc", "cnn_acc": "validation_cnn_acc", "top1": "validation_top1"}
"""main metrics of runs → validation metrics by which the best run is chosen"""
_STYLES = {
    "running": "cyan",
    "done": "green",
    "failed": "bold red",
    "damaged": "bold red",
    "diverged": "yellow",
    "outdated": "yellow",
}


class ShowStatus(Command):
    """Print the progress of the runs in a folder of results.

    Also print the hours of each run. A run is waiting, running (with epoch and time left), stopped, failed (with the
    last line of its log), diverged, damaged, outdated (made from other images than the present data set), or done (with
    its main metric). Jobs on a cluster are shown too, because the command only reads their files.
    """

    command = "status"

    results: CliPositionalArg[Path] = Path("results")
    """results/{preset}, or the folder that contains the results of several presets"""

    def run(self) -> None:
        """Print the runs of each preset, as a table on a terminal and as tab-separated lines otherwise."""
        for index, root in enumerate(find_roots(self.results)):
            runs = read_progress(root)
            if index:
                print()
            print(f"{root}: {_summarize(runs)}")
            if runs:
                (_print_table if sys.stdout.isatty() else _print_lines)(runs)
            for line in _describe_best(runs):
                print(line)


def _summarize(runs: list[Progress]) -> str:
    counts = Counter(run.state for run in runs)
    hours = sum(run.seconds for run in runs) / 3600
    return ", ".join([*(f"{count} {state}" for state, count in counts.most_common()), f"{hours:.2f} h"])


def _format_cells(run: Progress) -> tuple[str, ...]:
    from nfpi.results.tables.layout import format_measurement

    name = next((name for name in _SHOWN if name in run.metrics), None)
    entry = find_metric(name) if name else None
    result = f"{entry.label} {format_measurement(run.metrics[entry.name], entry)}" if entry else ""
    return run.run.folder, run.state, result, f"{run.seconds / 3600:.2f}", run.detail


def _describe_best(runs: list[Progress]) -> Iterator[str]:
    """Describe the best runs of each data set for each metric shown, by its mean over seeds on the validation split."""
    from nfpi.results.tables.summaries import Score, choose_best

    diverged = Counter(replace(run.run, seed=0) for run in runs if run.state == "diverged")
    for dataset in dict.fromkeys(run.run.dataset for run in runs):
        for name, chosen_by in _SHOWN.items():
            rivals: dict[Run, list[Progress]] = {}
            for run in runs:
                if run.run.dataset == dataset and {name, chosen_by} <= run.metrics.keys():
                    rivals.setdefault(replace(run.run, seed=0), []).append(run)
            scores = [
                Score(fmean(run.metrics[chosen_by] for run in seeds), diverged[key], len(seeds) + diverged[key])
                for key, seeds in rivals.items()
            ]
            best = choose_best(scores, higher_is_better=find_metric(chosen_by).higher_is_better)
            if best is not None and len(rivals) > 1:
                key = list(rivals)[best]
                yield _describe_seeds(rivals[key], diverged[key], name)


def _describe_seeds(done: list[Progress], diverged: int, name: str) -> str:
    """Describe runs that differ only in the seed: the mean of a metric, and the folder (`seed=*` if several)."""
    from nfpi.results.tables.layout import format_measurement

    run, entry = done[0].run, find_metric(name)
    where, folder, count = f"on {run.dataset}, chosen on the validation split", run.folder, ""
    several = len(done) + diverged > 1
    if several:
        folder = run.template.format(**run.wildcards | {"seed": "*"})
        count = f"mean of {len(done)} seeds" if len(done) > 1 else "1 seed"
        count = f" ({count}, {diverged} diverged)" if diverged else f" ({count})"
    value = f"{entry.label} {format_measurement(fmean(item.metrics[name] for item in done), entry)}"
    return f"best {'runs' if several else 'run'} {where}: {folder}, {value}{count}"


def _print_table(runs: list[Progress]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in _HEADING:
        table.add_column(name, justify="right" if "(h)" in name else "left", overflow="fold")
    for run in runs:
        table.add_row(*_format_cells(run), style=_STYLES.get(run.state))
    # brackets in names are not markup
    Console(markup=False, highlight=False).print(table)


def _print_lines(runs: list[Progress]) -> None:
    for cells in (_HEADING, *map(_format_cells, runs)):
        print("\t".join(cells).rstrip())
