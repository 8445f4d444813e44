"""Commands that inspect presets, machines and runs: targets with times, a check of a machine, and progress."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic_settings import CliPositionalArg

from nfpi.config.metrics import MISMATCH_LIMIT, find_metric
from nfpi.config.resolution import Resolved, resolve
from nfpi.config.settings import Config
from nfpi.results.numbers import format_duration, format_measurement
from nfpi.results.recorded.calls import Progress, find_roots, read_progress
from nfpi.results.recorded.csv_files import Row, format_lines
from nfpi.results.recorded.runs import MISMATCH_ADVICE
from nfpi.runtime.faults import escape_controls
from nfpi.runtime.location import CONFIG_FILE, find_workflow
from nfpi.stages.base import Command
from nfpi.stages.keys import SettingsKeys

_TARGET_HEADING = ("target", "content")
_OTHERS = {
    "all": "all tables and figures, and the claims",
    "check_device": "check of a machine for the trainings",
    "benchmark": "speed of steps and fits",
}


def print_rows(heading: Sequence[str], rows: Sequence[Row]) -> None:
    """Print rows as a table with four decimals on a terminal, else as tab-separated lines with all digits.

    Args:
        heading: names of the columns.
        rows: at least one row of values.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    if not sys.stdout.isatty():
        print(format_lines(heading, rows, "\t"), end="")
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name, value in zip(heading, rows[0], strict=True):
        table.add_column(name, justify="right" if isinstance(value, float) else "left", overflow="fold")
    table.columns[0].no_wrap = True  # paths of runs are to be copied
    for row in rows:
        table.add_row(*(f"{value:.4f}" if isinstance(value, float) else escape_controls(value) for value in row))
    # brackets in names are not markup
    Console(markup=False, highlight=False).print(table)


class PresetCommand(Command):
    """A command that reads the settings of a preset."""

    preset: str | None = None
    """name of a preset, or path of your own; None: the preset that `config` or config.yaml names"""
    config: dict[str, Any] = {}
    """settings that override the preset, as with `snakemake --config`"""

    def resolve(self, file: Path) -> Resolved:
        """Return the settings, from a config.yaml with the folder of presets beside it.

        Raises:
            ConfigError: the settings are invalid.
        """
        chosen = {} if self.preset is None else {"preset": self.preset}
        return resolve(file, file.parent / "presets", self.config | chosen)


class ListTargets(PresetCommand):
    """List the targets of a preset, with what `snakemake TARGET` makes."""

    command = "targets"
    group = "prepare runs"

    def run(self) -> None:
        """Print the targets, as a table on a terminal and as tab-separated lines otherwise.

        Raises:
            ConfigError: the settings are invalid, or their file is not found.
        """
        print_rows(_TARGET_HEADING, list(_list_targets(self.resolve(find_workflow() / CONFIG_FILE).config)))


def _list_targets(config: Config) -> Iterator[tuple[str, str]]:
    for name, table in config.tables.items():
        yield name, table.title
    for name, figure in config.figures.items():
        table_name = getattr(figure, "table", None)
        yield name, figure.title + (f" (made with {table_name})" if table_name else "")
    if config.claims:
        yield "claims", "verdicts on the claims"
    yield from _OTHERS.items()


class CheckDevice(PresetCommand):
    """Check this machine for the trainings of a preset.

    Takes minutes. Prints one line per finding: ok; slow or FAILED, with a remedy; or missing, with what is missing.
    Exits with 1 if one FAILED. All steps are made on random images.
    """

    command = "check-device"
    group = "prepare runs"

    config_file: Path | None = None
    """config.yaml, with the folder of presets beside it; None: that of this folder, or of the installed clone"""

    def run(self) -> None:
        """Print one line per finding.

        Raises:
            ConfigError: the settings are invalid, train no flow, or their file is not found.
            ValueError: a check failed.
        """
        from nfpi.checks.questions import answer_questions

        failed: list[str] = []
        for line in answer_questions(self.resolve(self.config_file or find_workflow() / CONFIG_FILE)):
            print(f"{line.verdict:8}{line.check}: {line.text}", flush=True)
            if line.verdict == "FAILED" and line.check not in failed:
                failed.append(line.check)
        if failed:
            raise ValueError(f"check-device: {', '.join(failed)} FAILED; see the lines above")


_RUN_HEADING = ("run", "state", "result", "time (min)", "detail")
_MAIN_METRICS = ("nf_acc", "cnn_acc", "top1")
"""main metrics of runs"""


class ShowStatus(Command):
    """Print the progress of the runs in a folder of results.

    Also print the minutes of each run. A run is waiting, running (with epoch and time left), stopped, failed (with the
    last line of its log), diverged, damaged, outdated (made with other settings, or from other images, than the present
    ones), or done (with its main metric, and a remark if its flow does not follow its prior). Jobs on a cluster are
    shown too, because the command only reads their files.
    """

    command = "status"
    group = "look at results"

    results: CliPositionalArg[Path] = Path("results")
    """results/{preset}, or the folder that contains the results of several presets"""

    def run(self) -> None:
        """Print the runs of each preset, as a table on a terminal and as tab-separated lines otherwise."""
        for index, root in enumerate(find_roots(self.results)):
            chain = SettingsKeys()
            runs = read_progress(root, chain)
            if index:
                print()
            print(f"{root}: {_summarize(runs)}")
            if runs:
                print_rows(_RUN_HEADING, [_format_cells(run) for run in runs])
            for reason in chain.unknown.values():
                print(f"not compared with settings: {reason}", file=sys.stderr)
            if any(run.metrics.get("mismatch", 0.0) > MISMATCH_LIMIT for run in runs):
                print(MISMATCH_ADVICE, file=sys.stderr)


def _summarize(runs: list[Progress]) -> str:
    counts = Counter(run.state for run in runs)
    took = format_duration(sum(run.seconds for run in runs))
    return ", ".join([*(f"{count} {state}" for state, count in counts.most_common()), took])


def _format_cells(run: Progress) -> tuple[str, ...]:
    name = next((name for name in _MAIN_METRICS if name in run.metrics), None)
    entry = find_metric(name) if name else None
    result = f"{entry.label} {format_measurement(run.metrics[entry.name], entry)}" if entry else ""
    return run.run.folder, run.state, result, f"{run.seconds / 60:.1f}", run.detail
