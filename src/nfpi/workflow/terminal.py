"""Terminal output of the workflow: one line per finished job, and the failed jobs at the end.

The package `snakemake_logger_plugin_nfpi` passes the records of Snakemake's loggers to :class:`JobLines`, which uses
their events and levels, not their wording: messages without an event are printed from level WARNING on. Records with
the attribute `nfpi` are our own. Snakemake's own log (.snakemake/log) contains all messages. Snakemake is not imported
here.
"""

from __future__ import annotations

import logging
import signal
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from nfpi.results.numbers import format_duration
from nfpi.results.recorded.calls import describe_epoch, read_benchmark
from nfpi.runtime.job_log import STATE_SUFFIX, read_last_lines, read_state

Record = logging.LogRecord
Format = Callable[[Record], str]

OURS = {"nfpi": True}
"""The argument `extra` of our own log messages, which are always printed."""
JOBS_MAY_RUN = Event()
"""Set before the first job: until then, Ctrl-C ends the call at once; from then on, Snakemake stops the jobs."""
BEFORE_LEAVING: list[Callable[[], object]] = []
"""What Ctrl-C does before it ends the call at once."""
_SHOWN_LOG_LINES = 8
"""Number of lines shown of the log of a failed job."""
_SHOWN_FAILURES = 5
"""Number of failed jobs whose logs are shown."""
_SHOWN_RUNNING = 10
"""Number of running jobs that a terminal shows."""


def announce(logger: logging.Logger, rules: Collection[str]) -> None:
    """Send the rules with jobs to the output, before the first job."""
    logger.info("", extra={"nfpi": frozenset(rules)})
    JOBS_MAY_RUN.set()


def show_at_end(logger: logging.Logger, describe: Callable[[], str]) -> None:
    """Let the output end with the description of results that are up to date, if there are no jobs."""
    logger.info("", extra={"nfpi": describe})


@dataclass
class JobLines:
    """One line per job.

    Args:
        stream: stream to print on; if it is a terminal, the last lines show the running jobs.
        is_dry_run: whether jobs are only counted.
        clock: returns seconds since an arbitrary time.
    """

    stream: TextIO
    is_dry_run: bool = False
    clock: Callable[[], float] = time.monotonic
    _stats: Counter[str] = field(default_factory=Counter)
    _running: dict[int, Any] = field(default_factory=dict)  # records of the starts of jobs
    _failed: dict[int, Any] = field(default_factory=dict)
    _planned: dict[str, list[Any]] = field(default_factory=dict)  # those of a dry run, by rule
    _details: set[str] = field(default_factory=set)
    _total: int = 0
    _done: int = 0
    _news: list[str] = field(default_factory=list)
    _describe_results: Callable[[], str] = str
    _has_started: bool = False
    _has_error: bool = False
    _interrupted: bool = False
    _has_ended: bool = False

    def __post_init__(self) -> None:
        console = Console(file=self.stream, force_terminal=self.stream.isatty())  # whatever FORCE_COLOR says
        running = self._describe_running
        self._live = Live(
            get_renderable=running,
            console=console,
            refresh_per_second=1,
            transient=True,
            redirect_stdout=False,  # where --dag and --summary write
            redirect_stderr=False,
        )

    def notice_interrupts(self, previous: Callable[..., Any], leave: Callable[[], None]) -> None:
        """Notice Ctrl-C, after which failures of jobs and of the call are not reported as errors.

        Before jobs may run, it ends the call at once. An exception would not do: libraries that are being imported turn
        it into errors of their own.

        Args:
            previous: handler of the signal, which is called once jobs may run.
            leave: function that ends the process in one line.
        """

        def note_and_interrupt(*arguments: Any) -> None:
            if not JOBS_MAY_RUN.is_set():
                self._live.stop()
                for action in BEFORE_LEAVING:
                    action()
                leave()
            self._interrupted = True
            previous(*arguments)

        signal.signal(signal.SIGINT, note_and_interrupt)

    def print_record(self, record: Any, format_record: Format) -> None:
        """Print a record.

        Args:
            record: the record.
            format_record: function that formats a record as Snakemake does.
        """
        ours, event = getattr(record, "nfpi", None), str(getattr(record, "event", None) or "")
        if self._interrupted and ours is None:
            if self._live.is_started:
                self._live.stop()
                self._print("stopping ...")
            return
        match event:
            case "workflow_started":
                self._has_started = True
                self._news.clear()
            case "run_info":
                self._stats = Counter({str(name): int(n) for name, n in record.stats.items() if name != "total"})
            case "job_info" if self.is_dry_run and record.rule_msg:
                self._planned.setdefault(record.rule_name, []).append(record)
            case "job_info":
                JOBS_MAY_RUN.set()  # also with --no-hooks
                self._handle_start(record)
            case "job_finished":
                self._handle_end(record.job_id)
            case "job_error":
                self._handle_failure(record)
            case _ if callable(ours):
                self._describe_results = ours
            case _ if isinstance(ours, frozenset):
                self._total = sum(count for rule, count in self._stats.items() if rule in ours)
                self._print(_format_count(self._total, "job"))
            case _ if ours is not None or record.levelno >= logging.WARNING:
                self._handle_message(record, format_record)
            case "":
                self._news = [*([] if self._has_started else self._news), format_record(record)]
        if not self._interrupted:
            self._show_running()

    def print_ending(self) -> None:
        """Print the ends of the logs of failed jobs; after Ctrl-C, how to resume.

        Of a dry run, print its jobs. Without jobs, say so and show the results; if no workflow was started at all, as
        with `--unlock`, print what Snakemake says.
        """
        if self._has_ended:
            return  # Snakemake closes its loggers twice
        self._has_ended = True
        self._live.stop()
        if self._interrupted:
            self._print("\nstopped; run the same command again to resume")
        elif self._failed:
            self._print_failed()
        elif self._planned:
            self._print_planned()
        elif not self._has_started and self._news:
            self._print("\n".join(self._news))
        elif self._has_started and not self._stats and not self._has_error:
            self._print("Nothing to be done: all requested files are up to date")
            self._print(self._describe_results())

    def _print_planned(self) -> None:
        """Print a line for each rule, with the number of its jobs and the first of them, and what has changed."""
        width = max(map(len, self._planned))
        for rule, jobs in self._planned.items():
            others = f", and {len(jobs) - 1} more" if len(jobs) > 1 else ""
            self._print(f"{rule:{width}} {len(jobs):4}  {_get_title(jobs[0])}{others}")
            for line in dict.fromkeys(line for job in jobs for line in job.rule_msg.splitlines()[1:]):
                self._print(f"{'':{width}}       {line}")
        self._print(f"{_format_count(sum(map(len, self._planned.values())), 'job')} to be run; -n -p shows each")

    def _print_failed(self) -> None:
        failed, left = len(self._failed), self._total - self._done - len(self._failed)
        waiting = f", {_format_count(left, 'job')} not run" if left > 0 else ""
        self._print(
            f"\n{_format_count(failed, 'job')} failed{waiting}; remove the cause, and run the same command again"
        )
        for job in list(self._failed.values())[:_SHOWN_FAILURES]:  # all are named above
            self._print(f"\n{_get_title(job)}")
            for path in job.log:
                lines = read_last_lines(Path(path), _SHOWN_LOG_LINES)
                self._print("".join(f"    {line}\n" for line in lines) + f"  log: {path}")

    def _handle_start(self, job: Any) -> None:
        if not job.rule_msg:
            return  # a target without a command
        job.began = self.clock()  # on a cluster, the time of its submission
        self._running[job.jobid] = job
        remarks = [] if job.local else ["submitted"]
        if self._failed.pop(job.jobid, None) is not None:
            remarks.append("trying again")
        if remarks:
            self._print_job(job, f"{', '.join(remarks)}; log: {', '.join(map(str, job.log))}")
        for line in job.rule_msg.splitlines()[1:]:  # what jobs have in common is printed once
            if line not in self._details:
                self._details.add(line)
                self._print(line)

    def _handle_end(self, job_id: int) -> None:
        job = self._running.pop(job_id, None)
        if job is None:
            return
        self._done += 1
        measured = read_benchmark(Path(job.benchmark)) if job.benchmark else {}  # without the time in a cluster's queue
        seconds = measured.get("s", self.clock() - job.began)
        self._print_job(job, format_duration(seconds))

    def _handle_failure(self, record: Any) -> None:
        job = self._running.pop(record.jobid, None)
        if job is None:
            return
        job.log = [path for path in record.log if Path(path).exists()] or job.log
        self._failed[record.jobid] = job
        since = "" if job.local else " since its submission"
        self._print_job(job, f"FAILED after {format_duration(self.clock() - job.began)}{since}")
        if record.rule_msg:  # by the cluster's executor
            self._print(f"  {record.rule_msg}")

    def _handle_message(self, record: Any, format_record: Format) -> None:
        is_error = record.levelno >= logging.ERROR and not hasattr(record, "nfpi")
        self._has_error |= is_error
        of_running_job = self._running and getattr(record, "exception", None) == "RuleException"
        of_call = not self._running and is_error and self._failed
        if not of_running_job and not of_call:  # which the lines of failed jobs say
            self._print(format_record(record))

    def _print_job(self, job: Any, remark: str) -> None:
        width = len(str(self._total))
        place = f"{self._done:{width}}/{self._total}  " if self._total else ""
        self._print(f"{place}{_get_title(job)} ({remark})")

    def _print(self, text: str) -> None:
        if text:
            self._live.console.out(text, highlight=False)

    def _show_running(self) -> None:
        """Show the running jobs below the printed lines of a terminal, from now on every second."""
        if not self._live.is_started:
            self._live.start()
            self._live.console.show_cursor()  # which rich hides, and a killed process would not show again
        self._live.refresh()

    def _describe_running(self) -> Text:
        """Return a line for each running job, or before the first one, what Snakemake does."""
        running = list(self._running.values())
        lines = [f"... {_get_title(job)}{self._format_progress(job)}" for job in running[:_SHOWN_RUNNING]]
        lines += [f"... and {len(running) - _SHOWN_RUNNING} more"] if len(running) > _SHOWN_RUNNING else []
        lines = lines or [f"... {line}" for line in "".join(self._news[-1:]).splitlines()[:1]]
        return Text("\n".join(lines), no_wrap=True, overflow="ellipsis")

    def _format_progress(self, job: Any) -> str:
        """Return the epoch of a running job and its time left, as far as they are known, in brackets."""
        state = read_state(Path(f"{job.log[0]}{STATE_SUFFIX}"))
        text = describe_epoch(state) if state is not None and state.state == "running" else ""
        return text and f" ({text})"


def _get_title(job: Any) -> str:
    """Return what a job does: the first line of its rule's message."""
    return str(job.rule_msg).partition("\n")[0]


def _format_count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
