"""Terminal output of the workflow: one line per finished job, and the failed jobs at the end.

The package `snakemake_logger_plugin_nfpi` passes the events of Snakemake's loggers to this module. Snakemake's own log
(.snakemake/log) is not affected. With `--dry-run`, `--verbose`, `--quiet`, `--printshellcmds` or `--debug-dag`,
Snakemake's own output is printed; only its descriptions of changed settings and of wrong usage are replaced. Snakemake
is not imported here.
"""

from __future__ import annotations

import copy
import io
import logging
import re
import shlex
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TextIO

from nfpi.results.recorded.times import read_seconds, read_times
from nfpi.runtime.durations import format_duration
from nfpi.runtime.job_log import read_last_lines
from nfpi.workflow.changes import describe_reason, find_changes
from nfpi.workflow.forecast import Forecast
from nfpi.workflow.misuse import describe_misuse

Record = logging.LogRecord
Format = Callable[[Record], str]

_SHOWN_LOG_LINES = 8
"""Number of lines shown of the log of a failed job."""
_SHOWN_FAILURES = 5
"""Number of failed jobs whose logs are shown."""
_NOISE = re.compile(
    r"(None$|$|Building DAG of jobs|Using shell: |Assuming unrestricted shared|Conda environments: ignored|"
    r"Select jobs to execute|Execute \d+ jobs|Provided |Rules claiming more threads|Group jobs: inactive|"
    r"Singularity containers: ignored|Complete log\(s\): |Elapsed time: |Finished jobid: |SLURM run ID: |"
    r"RuleException:\s+CalledProcessError in file |"
    r"(WorkflowError:\s+)?At least one job did not complete successfully|"
    r"Exiting because a job execution failed\. Look (above|below) for error messages)"
)
"""Beginnings of messages that are not printed: irrelevant to the user, or replaced by a line of this module."""
_INTERRUPTED = "Terminating processes on user request"
_RESTARTED = re.compile(r"Trying to restart job (\d+)\.")
_SUBMITTED = re.compile(r"Job (\d+) has been submitted with SLURM jobid (\S+) \(log: (.+)\)\.")
_NOTE = re.compile(r" \(send to storage\)$")
"""Remark that Snakemake adds to the names of log files."""


class OutputSettings(Protocol):
    """Command-line options that control the output."""

    dryrun: bool
    printshellcmds: bool
    verbose: bool
    debug_dag: bool
    quiet: Any
    stdout: bool


class Output(Protocol):
    """Handler of log records."""

    def print_record(self, record: Record, format_record: Format) -> None:
        """Print a record.

        Args:
            record: the record.
            format_record: function that formats a record as Snakemake does.
        """

    def print_ending(self) -> None:
        """Print the last lines at the end of a run of Snakemake."""


def make_output(settings: OutputSettings, handler: logging.Handler) -> Output:
    """Make the output for these options.

    Args:
        settings: command-line options.
        handler: Snakemake's own handler.
    """
    stream = sys.stdout if settings.stdout else sys.stderr
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")  # the encoding may lack λ
    if settings.dryrun or settings.verbose or settings.printshellcmds or settings.debug_dag or settings.quiet:
        return PlainOutput(handler)
    return JobLines(stream)


def announce(logger: logging.Logger, results: Path, stages: Mapping[str, str]) -> None:
    """Send the folder of results and the rules with jobs to the output, before the first job.

    Args:
        logger: Snakemake's logger.
        results: folder results/{preset}.
        stages: for each rule with jobs, the name under which their times are recorded.
    """
    logger.info("", extra={"nfpi_announcement": (results, dict(stages))})


@dataclass
class PlainOutput:
    """Snakemake's own lines, in which changed settings are given as `training.epochs: 40 → 12`.

    Args:
        handler: handler that prints the lines.
    """

    handler: logging.Handler

    def print_record(self, record: Record, format_record: Format) -> None:
        """Print a record."""
        record = copy.copy(record)  # the original goes to Snakemake's own log
        if _get_event(record) == "job_info":
            record.reason = describe_reason(record.reason, record.rule_name, record.wildcards)  # type: ignore[attr-defined]
        record.msg = describe_misuse(str(record.msg), sys.argv[1:]) or record.msg
        self.handler.emit(record)

    def print_ending(self) -> None:
        """No-op."""


@dataclass
class _Job:
    """A job that was started.

    Attributes:
        rule: name of its rule.
        message: description of the job.
        log: paths of its log.
        times: file in which its time is recorded; None: it is not recorded.
        began: time of its start, or of its submission to a cluster, in seconds of `JobLines.clock`.
        attempt: number of the attempt, from 1.
        is_submitted: whether it was submitted to a cluster.
    """

    rule: str
    message: str
    log: list[Path]
    times: Path | None
    began: float
    attempt: int = 1
    is_submitted: bool = False


@dataclass
class JobLines:
    """One line per job.

    Args:
        stream: stream to print on; if it is a terminal, the last line names the running jobs.
        clock: returns seconds since an arbitrary time.
    """

    stream: TextIO
    clock: Callable[[], float] = time.monotonic
    _stats: Counter[str] = field(default_factory=Counter)
    _forecast: Forecast = field(default_factory=Forecast)
    _running: dict[int, _Job] = field(default_factory=dict)
    _failed: dict[int, _Job] = field(default_factory=dict)
    _attempts: Counter[int] = field(default_factory=Counter)
    _changes: set[str] = field(default_factory=set)
    _total: int = 0
    _done: int = 0
    _interrupted: bool = False
    _shows_running: bool = False

    def print_record(self, record: Record, format_record: Format) -> None:
        """Print a record."""
        announced = getattr(record, "nfpi_announcement", None)
        if announced is not None:
            self._handle_announcement(*announced)
            return
        match _get_event(record):
            case "run_info":
                self._stats = Counter({str(name): int(n) for name, n in record.stats.items() if name != "total"})  # type: ignore[attr-defined]
            case "job_info":
                self._handle_start(record)
            case "job_finished":
                job_id = getattr(record, "job_id", None)
                self._handle_end(getattr(record, "jobid", 0) if job_id is None else job_id)
            case "job_error":
                self._handle_failure(record)
            case "group_info" | "group_error" | "error" | None | "":
                self._print_message(record, format_record)
        self._show_running()

    def print_ending(self) -> None:
        """Print the ends of the logs of failed jobs; after Ctrl-C, how to resume."""
        self._hide_running()
        if self._interrupted:
            self._print("\nstopped; run the same command again to resume")
        elif self._failed:
            self._print_failed()
        self._interrupted = False  # Snakemake closes its loggers, and so calls this method, twice
        self._failed.clear()

    def _print_failed(self) -> None:
        failed, left = len(self._failed), self._total - self._done - len(self._failed)
        waiting = f", {_format_count(left, 'job')} not run" if left > 0 else ""
        self._print(
            f"\n{_format_count(failed, 'job')} failed{waiting}; remove the cause, and run the same command again"
        )
        shown = list(self._failed.values())[:_SHOWN_FAILURES]
        for job in shown:
            self._print(f"\n{job.message}")
            for path in job.log:
                lines = read_last_lines(path, _SHOWN_LOG_LINES)
                self._print("".join(f"    {line}\n" for line in lines) + f"  log: {path}")
        if failed > len(shown):
            self._print(f"\nand {failed - len(shown)} more, named above")

    def _handle_announcement(self, results: Path, stages: Mapping[str, str]) -> None:
        jobs = Counter({rule: count for rule, count in self._stats.items() if rule in stages})
        times = read_times(results)
        self._forecast = Forecast(jobs, {rule: times.get(stages[rule], []) for rule in jobs})
        self._total = jobs.total()
        seconds, known = self._forecast.estimate_seconds_left({}, 1)
        time_left = f", about {format_duration(seconds)} if run one at a time" if known and self._total else ""
        follow = f" (nfpi status {shlex.quote(str(results))} shows what is running)" if self._total > 1 else ""
        self._print(f"{_format_count(self._total, 'job')}{time_left}{follow}")

    def _handle_start(self, record: Any) -> None:
        if not record.rule_msg:
            return  # a target without a command
        message = record.rule_msg.splitlines()[0]
        log = [Path(_NOTE.sub("", str(name))) for name in record.log]
        for change in find_changes(record.reason, record.rule_name, record.wildcards):
            if change not in self._changes:
                self._changes.add(change)
                self._print(f"changed: {change}")
        times = Path(record.benchmark) if record.benchmark else None
        self._attempts[record.jobid] += 1
        attempt = self._attempts[record.jobid]
        self._running[record.jobid] = _Job(record.rule_name, message, log, times, self.clock(), attempt)

    def _handle_end(self, job_id: int) -> None:
        job = self._running.pop(job_id, None)
        if job is None:
            return
        self._done += 1
        seconds = read_seconds(job.times) if job.times else None  # excludes the time in a cluster's queue
        seconds = self.clock() - job.began if seconds is None else seconds
        self._forecast.record_end(job.rule, seconds)
        self._print_job(job, ", ".join(filter(None, (format_duration(seconds), self._format_time_left()))))

    def _handle_failure(self, record: Any) -> None:
        job = self._running.pop(record.jobid, None)
        if job is None or self._interrupted:
            return
        job.log = [path for path in (Path(_NOTE.sub("", str(name))) for name in record.log) if path.exists()] or job.log
        self._failed[record.jobid] = job
        self._forecast.record_end(job.rule, None)
        since = " since its submission" if job.is_submitted else ""
        self._print_job(job, f"FAILED after {format_duration(self.clock() - job.began)}{since}")

    def _handle_restart(self, job_id: int) -> None:
        job = self._failed.pop(job_id, None)
        if job is not None:
            self._forecast.record_restart(job.rule)
            self._print_job(job, f"trying again, attempt {job.attempt + 1}; log: {', '.join(map(str, job.log))}")

    def _print_job(self, job: _Job, remark: str) -> None:
        width = len(str(self._total))
        place = f"{self._done:{width}}/{self._total}  " if self._total else ""
        self._print(f"{place}{job.message} ({remark})")

    def _format_time_left(self) -> str:
        if self._done >= self._total:
            return ""
        now = self.clock()
        running: dict[str, list[float]] = {}
        for job in self._running.values():
            running.setdefault(job.rule, []).append(now - job.began)
        seconds, known = self._forecast.estimate_seconds_left(running, len(self._running) + 1)
        if seconds < 1:
            return ""
        return f"{'about' if known else 'at least'} {format_duration(seconds)} left"

    def _print_message(self, record: Record, format_record: Format) -> None:
        text = str(format_record(record))
        if text.startswith(_INTERRUPTED):
            self._interrupted = True
            self._running.clear()
            self._print("stopping ...")
        elif restarted := _RESTARTED.match(text):
            self._handle_restart(int(restarted[1]))
        elif submitted := _SUBMITTED.match(text):
            self._handle_submission(int(submitted[1]), submitted[2])
        elif not _NOISE.match(text):
            self._print(describe_misuse(text, sys.argv[1:]) or text)

    def _handle_submission(self, job_id: int, cluster_id: str) -> None:
        job = self._running.get(job_id)
        if job is not None:
            job.is_submitted = True
            self._print_job(job, f"submitted as SLURM job {cluster_id}; log: {', '.join(map(str, job.log))}")

    def _print(self, text: str) -> None:
        self._hide_running()
        print(text, file=self.stream, flush=True)

    def _show_running(self) -> None:
        """Show the running jobs on the last line of a terminal."""
        self._hide_running()
        if not self._running or not self.stream.isatty():
            return
        job, *others = self._running.values()
        mean = self._forecast.compute_mean_seconds(job.rule)
        parts = [
            f"... {job.message}",
            f" (about {format_duration(mean)})" if mean else "",
            f", and {len(others)} more" if others else "",
        ]
        width = shutil.get_terminal_size().columns - 1
        self.stream.write("".join(parts)[:width])
        self.stream.flush()
        self._shows_running = True

    def _hide_running(self) -> None:
        if self._shows_running:
            self.stream.write("\r\x1b[K")
            self._shows_running = False


def _get_event(record: Record) -> str | None:
    event = getattr(record, "event", None)
    return None if event is None else str(getattr(event, "value", event))


def _format_count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
