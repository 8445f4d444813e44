"""Commands that show the progress and the logs of runs."""

from __future__ import annotations

import itertools
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from pydantic_settings import CliPositionalArg

from nfpi.config.base import NonNegativeInt
from nfpi.config.metrics import MISMATCH_LIMIT, find_metric
from nfpi.results.numbers import format_measurement
from nfpi.results.recorded.calls import (
    Progress,
    find_roots,
    is_running,
    list_logs,
    read_modification_time,
    read_progress,
)
from nfpi.results.recorded.csv_files import Row, format_lines
from nfpi.results.recorded.runs import MISMATCH_ADVICE
from nfpi.runs import LOGS_FOLDER, Run, parse_run_folder
from nfpi.runtime.faults import escape_controls
from nfpi.runtime.job_log import STATE_SUFFIX, read_last_lines, read_state
from nfpi.stages.base import Command
from nfpi.stages.keys import SettingsKeys

_HEADING = ("run", "state", "result", "time (h)", "detail")
_SHOWN = ("nf_acc", "cnn_acc", "top1")
"""main metrics of runs"""
_STYLES = {
    "running": "cyan",
    "done": "green",
    "failed": "bold red",
    "damaged": "bold red",
    "diverged": "yellow",
    "outdated": "yellow",
}
_POLL_SECONDS = 0.5
"""seconds between two reads of the logs"""


def print_rows(
    heading: Sequence[str], rows: Sequence[Row], styles: Iterable[str | None] = itertools.repeat(None)
) -> None:
    """Print rows as a table with four decimals on a terminal, else as tab-separated lines with all digits.

    Args:
        heading: names of the columns.
        rows: at least one row of values.
        styles: style of each row on a terminal, such as `bold red`.
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
    for row, style in zip(rows, styles, strict=False):
        cells = (f"{value:.4f}" if isinstance(value, float) else escape_controls(value) for value in row)
        table.add_row(*cells, style=style)
    # brackets in names are not markup
    Console(markup=False, highlight=False).print(table)


class ShowStatus(Command):
    """Print the progress of the runs in a folder of results.

    Also print the hours of each run. A run is waiting, running (with epoch and time left), stopped, failed (with the
    last line of its log), diverged, damaged, outdated (made with other settings, or from other images, than the present
    ones), or done (with its main metric, and a remark if its flow does not follow its prior). Jobs on a cluster are
    shown too, because the command only reads their files.
    """

    command = "status"

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
                print_rows(
                    _HEADING, [_format_cells(run) for run in runs], styles=[_STYLES.get(run.state) for run in runs]
                )
            for reason in chain.unknown.values():
                print(f"not compared with settings: {reason}", file=sys.stderr)
            if any(run.metrics.get("mismatch", 0.0) > MISMATCH_LIMIT for run in runs):
                print(MISMATCH_ADVICE, file=sys.stderr)


def _summarize(runs: list[Progress]) -> str:
    counts = Counter(run.state for run in runs)
    hours = sum(run.seconds for run in runs) / 3600
    return ", ".join([*(f"{count} {state}" for state, count in counts.most_common()), f"{hours:.2f} h"])


def _format_cells(run: Progress) -> tuple[str, ...]:
    name = next((name for name in _SHOWN if name in run.metrics), None)
    entry = find_metric(name) if name else None
    result = f"{entry.label} {format_measurement(run.metrics[entry.name], entry)}" if entry else ""
    return run.run.folder, run.state, result, f"{run.seconds / 3600:.2f}", run.detail


class ShowLog(Command):
    """Print the log of a run's training, and follow it.

    Of an active run, or one whose last job failed, prints the last log, and follows it while the run is active.
    """

    command = "log"

    folder: CliPositionalArg[Path]
    """folder of the run as printed by `nfpi status`, or with results/{preset} prepended"""
    results: Path = Path("results")
    """folder in which the run is searched for, unless its path begins with results/{preset}"""
    lines: NonNegativeInt = 20
    """number of lines to begin with"""
    follow: bool = True
    """follow the log while the run is active"""

    def run(self) -> None:
        """Print the end of the latest log, then follow it while the run is active; Ctrl-C stops.

        Raises:
            FileNotFoundError: the run does not exist or has no log yet.
        """
        root, run = _find_run(self)
        shown: dict[Path, int] = {}
        with suppress(KeyboardInterrupt):
            while True:
                active = self.follow and is_running(root, run)  # checked first, so that the last lines are read too
                # there is none for a moment, as Snakemake removes the log before the job is tried again
                for path in _choose_log(list_logs(root, run), active):
                    if path not in shown:
                        print(f"==> {path} <==")
                        shown[path] = path.stat().st_size if path.exists() else 0
                        for line in read_last_lines(path, self.lines):
                            print(line)
                    shown[path] = _print_from_offset(path, shown[path])
                sys.stdout.flush()
                if not active:
                    return
                time.sleep(_POLL_SECONDS)


def _choose_log(logs: list[Path], active: bool) -> list[Path]:
    """Return the last log, or that of the training if the run is not active and its last job has not failed."""
    trainings = [path for path in logs if path.name.startswith("train_")]
    job = read_state(logs[-1].with_name(f"{logs[-1].name}{STATE_SUFFIX}")) if logs else None
    has_ended = not active and (job is None or job.state == "done")
    return trainings[-1:] if has_ended and trainings else logs[-1:]


def _find_run(command: ShowLog) -> tuple[Path, Run]:
    name = command.folder
    candidates = [(parent, name.relative_to(parent)) for parent in name.parents if (parent / LOGS_FOLDER).is_dir()]
    with suppress(FileNotFoundError):
        candidates += [(root, name) for root in find_roots(command.results)]
    found = [
        (read_modification_time(logs[-1]), root, run)
        for root, folder in candidates
        if (run := parse_run_folder(folder.as_posix())) is not None and (logs := list_logs(root, run))
    ]
    if not found:
        raise FileNotFoundError(f"{name}: expected a run with a log, received none (nfpi status lists runs)")
    _, root, run = max(found, key=lambda item: item[0])  # several presets may have the run
    return root, run


def _print_from_offset(path: Path, offset: int) -> int:
    """Print a file from an offset on, or all of it if it is shorter (a new log), and return the offset of its end."""
    try:
        with path.open("rb") as file:
            offset = offset if file.seek(0, 2) >= offset else 0
            file.seek(offset)
            added = file.read()
    except OSError:
        return offset
    sys.stdout.write(added.decode("utf-8", errors="replace"))
    return offset + len(added)
