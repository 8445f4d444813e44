"""What a call of the workflow prints."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from nfpi.results.recorded.calls import read_planned
from nfpi.runtime.job_log import STATE_SUFFIX, read_last_lines
from nfpi.workflow.terminal import OURS, JobLines

from .conftest import DEMO_RUNS, Project
from .test_killed import start_snakemake

START = "start-flow results/demo/digits/mef/initial/data/seed=0"
STATE = "results/demo/digits/mef/initial/data/seed=0/state.safetensors"
LOG = "results/demo/logs/digits/mef/initial/data/seed=0/start_flow.log"
RULES = frozenset({"train_flow", "evaluate"})


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self) -> bool:
        return True


class Call:
    """Events of a call, as Snakemake tells them, at times that the test sets."""

    def __init__(
        self,
        results: Path,
        stream: io.StringIO | None = None,
        is_dry_run: bool = False,
        **stats: int,
    ) -> None:
        self.now, self.folder = 0.0, results
        self.stream = stream or io.StringIO()
        self.output = JobLines(self.stream, is_dry_run, clock=lambda: self.now)
        self.tell("workflow_started")
        self.tell("run_info", stats=stats | {"table2": 1, "total": sum(stats.values()) + 1})
        self.tell(None, nfpi=RULES)

    def tell(self, event: str | None, message: str = "", level: int = logging.INFO, **attributes: Any) -> None:
        record = logging.LogRecord("snakemake", level, "", 0, message, None, None)
        record.__dict__.update(event=event, **attributes)
        self.output.print_record(record, lambda record: str(record.msg))

    def start(self, job: int, rule: str, message: str, local: bool = True, times: Path | None = None) -> None:
        names = {"rule_name": rule, "rule_msg": message, "local": local, "benchmark": times and str(times)}
        self.tell("job_info", jobid=job, log=[str(self.folder / f"{job}.log")], **names)

    def finish(self, job: int) -> None:
        self.tell("job_finished", job_id=job)

    def fail(self, job: int, *logs: str, message: str | None = None) -> None:
        self.tell("error", "CalledProcessError", logging.ERROR, exception="RuleException")
        self.tell("job_error", jobid=job, log=list(logs), rule_msg=message)

    @property
    def lines(self) -> list[str]:
        return self.stream.getvalue().splitlines()


def test_a_job_is_one_line_when_it_has_ended(tmp_path) -> None:
    call = Call(tmp_path, train_flow=2)
    call.start(1, "train_flow", "Train mef")
    call.now = 65
    call.finish(1)
    call.start(0, "table2", "")  # a target
    call.finish(0)
    assert call.lines == [
        "2 jobs",
        "1/2  Train mef (1 min 5 s)",
    ]


def test_times_are_those_measured_without_the_time_in_a_queue(tmp_path) -> None:
    times = tmp_path / "benchmarks/train_flow.tsv"
    times.parent.mkdir()
    times.write_text("s\tmax_rss\n600\t1\n")
    call = Call(tmp_path, train_flow=4)
    call.start(1, "train_flow", "Train mef", times=times)
    call.now = 7200
    call.finish(1)
    assert call.lines[-1] == "1/4  Train mef (10 min)"


def test_failed_jobs_stand_at_the_end_with_the_last_lines_of_their_logs(tmp_path) -> None:
    call = Call(tmp_path, train_flow=2, evaluate=1)
    call.start(1, "train_flow", "Train mef")
    call.start(2, "train_flow", "Train glow")
    (tmp_path / "1.log").write_text("".join(f"line {n}\n" for n in range(30)) + "nfpi: error: out of memory\n")
    slurm = tmp_path / "7.log"
    slurm.write_text("CANCELLED DUE TO TIME LIMIT\n")
    call.fail(1, str(tmp_path / "1.log"), str(slurm), str(tmp_path / "never.log"))
    call.finish(2)
    call.tell(None, "Exiting", logging.ERROR)
    call.tell("error", "At least one job has failed", logging.ERROR, exception="WorkflowError")
    call.output.print_ending()
    call.output.print_ending()  # loggers may be closed twice
    lines = call.lines
    assert "FAILED" in lines[1]
    (failed,) = (index for index, line in enumerate(lines) if line.startswith("1 job failed, 1 job not run"))
    assert lines[failed + 2 :] == [
        "Train mef",
        *(f"    line {n}" for n in range(23, 30)),
        "    nfpi: error: out of memory",
        f"  log: {tmp_path}/1.log",
        "    CANCELLED DUE TO TIME LIMIT",
        f"  log: {slurm}",
    ]


def test_a_job_that_is_tried_again_is_said_and_no_failure(tmp_path) -> None:
    call = Call(tmp_path, train_flow=1)
    call.start(1, "train_flow", "Train mef")
    call.fail(1)
    call.start(1, "train_flow", "Train mef")
    call.now = 5
    call.finish(1)
    call.output.print_ending()
    words = ("FAILED", "trying again", "(5 s)")
    assert len(call.lines) == 1 + len(words)
    assert all(word in line for word, line in zip(words, call.lines[1:], strict=True))


def test_of_messages_without_an_event_warnings_and_our_own_are_printed(tmp_path) -> None:
    call = Call(tmp_path, train_flow=1)
    call.tell(None, "Select jobs to execute ...")
    call.tell(None, "SLURM's controller does not answer", logging.WARNING)
    call.tell("error", "No access", logging.ERROR, exception="OSError")
    call.tell(None, "page:   index.html", **OURS)
    assert call.lines[1:] == ["SLURM's controller does not answer", "No access", "page:   index.html"]


def test_a_call_without_jobs_says_so_and_shows_what_is_there(tmp_path) -> None:
    call = Call(tmp_path)
    call.output = JobLines(call.stream)
    call.tell(None, nfpi=lambda: "table:  table2.md")
    call.tell("workflow_started")
    call.tell(None, "up to date")
    call.output.print_ending()
    assert call.lines[-2].startswith("Nothing to be done")
    assert call.lines[-1] == "table:  table2.md"


def test_a_terminal_ends_in_a_line_for_each_running_job(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    call = Call(tmp_path, Terminal(), train_flow=14)
    for job in range(13):
        call.start(job, "train_flow", f"Train {job}")
    assert call.lines[-1] == "... and 3 more"
    for job in range(2, 13):
        call.finish(job)
    state = {"state": "running", "epoch": 3, "epochs": 40, "epoch_seconds": 2.0}
    (tmp_path / f"0.log{STATE_SUFFIX}").write_text(json.dumps(state))
    (tmp_path / f"1.log{STATE_SUFFIX}").write_text(json.dumps(state | {"state": "failed"}))  # an earlier attempt
    call.start(13, "train_flow", "Train " + "long" * 100)
    shown = call.lines[-3:]
    assert shown[0].endswith("... Train 0 (epoch 3/40, about 1 min 14 s left)")
    assert shown[1] == "... Train 1"
    assert len(shown[2]) == 80
    call.now = 20
    call.finish(1)
    assert "\x1b[2K12/14  Train 1 (20 s" in call.stream.getvalue()
    call.output.print_ending()
    assert call.stream.getvalue().endswith("\x1b[2K")


def test_a_file_has_nothing_of_these_lines(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "20")
    call = Call(tmp_path, train_flow=1)
    call.start(1, "train_flow", "Train " + "long" * 100)
    call.finish(1)
    call.output.print_ending()
    assert "\x1b" not in call.stream.getvalue()
    assert len(call.lines) == 2


def test_a_dry_run_is_a_line_a_rule_with_what_has_changed(tmp_path) -> None:
    call = Call(tmp_path, is_dry_run=True, train_flow=2)
    call.start(1, "train_flow", "Train mef\nchanged: training.epochs: 4 → 2")
    call.start(2, "train_flow", "Train glow\nchanged: training.epochs: 4 → 2")
    call.start(0, "table2", "")  # a target
    call.output.print_ending()
    assert [line.strip() for line in call.lines[1:]] == [
        "train_flow    2  Train mef, and 1 more",
        "changed: training.epochs: 4 → 2",
        "2 jobs to be run; -n -p shows each",
    ]


def test_of_a_progress_bar_only_the_last_state_is_shown(tmp_path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"begin\n\n 1%|\r 50%|\r 99%|#\nend \xff\n")
    assert read_last_lines(path, 3) == ["begin", " 99%|#", "end \ufffd"]
    assert read_last_lines(path, 0) == read_last_lines(tmp_path / "missing.log", 3) == []


# ---- Snakemake itself -----------------------------------------------------------------------------------------


def test_a_whole_call_is_short_and_ends_with_what_was_made(finished_project: Project) -> None:
    lines = finished_project.printed.splitlines()
    assert len(lines) <= 80
    assert len([line for line in lines if re.match(r" *\d+/33  [A-Z]", line)]) == 33
    assert [line.split()[0] for line in lines[-3:]] == ["table:", "figure:", "page:"]


def test_a_call_leaves_what_it_was_asked_for(finished_project: Project) -> None:
    runs = read_planned(finished_project.folder / "results/demo")
    assert [run.folder for run in runs if run.classifier is None] == DEMO_RUNS
    assert {run.of_flow.folder for run in runs if run.classifier is not None} == set(DEMO_RUNS)


def test_a_failure_is_printed_last_and_without_its_command(fresh_project: Project) -> None:
    printed = fresh_project.run_snakemake(STATE, "--retries", "1", check=False, STUB_FAILS=START).stdout
    assert printed.count("FAILED after") == 2
    assert printed.count("trying again") == 1
    assert printed.rstrip().endswith(f"    told to fail\n  log: {LOG}")
    assert "CalledProcessError" not in printed
    assert "Traceback" not in printed


def test_ctrl_c_on_a_terminal_is_no_error(fresh_project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line of the running job moves, and vanishes."""
    monkeypatch.setenv("TERM", "xterm")
    fresh_project.add_command(
        "nfpi",
        "import pathlib, signal, sys, time\n"
        """pathlib.Path(sys.argv[2] + ".json").write_text('{"epoch": 3, "epochs": 40}')\n"""
        "signal.signal(signal.SIGINT, lambda *_: (time.sleep(3), exit(130)))\n"  # a stage saves its state first
        f"pathlib.Path({str(fresh_project.folder / 'begun')!r}).touch()\ntime.sleep(60)\n",
    )
    master, slave = pty.openpty()
    streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": slave, "stderr": slave}
    process = start_snakemake(fresh_project, "table2", "--cores", "2", **streams, start_new_session=True)
    os.close(slave)
    printed = b""
    while b"... Prepare digits/splits (epoch 3/40)" not in printed:
        chunk = read_to_end(master)
        assert chunk, printed
        printed += chunk
    while not (fresh_project.folder / "begun").exists():
        assert process.poll() is None
        time.sleep(0.1)
    time.sleep(1)  # Snakemake has noted the job
    os.killpg(process.pid, signal.SIGINT)
    while chunk := read_to_end(master):
        printed += chunk
    assert process.wait(60) != 0
    os.close(master)
    text = printed.decode().replace("\r\n", "\n")
    before, _, after = text.rpartition("... Prepare digits/splits (epoch 3/40)")
    assert before.endswith("\r\x1b[2K")  # in place of the line before
    assert after.startswith("\r\x1b[2K") or after.partition("stopping")[0].endswith("\x1b[2K")
    assert text.count("stopped; run the same command again to resume") == 1
    for word in ("rror", "FAILED", "Traceback"):
        assert word not in text


def test_what_snakemake_prints_goes_to_its_file_also_beside_a_terminal(fresh_project: Project) -> None:
    master, slave = pty.openpty()
    streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": slave}
    process = start_snakemake(fresh_project, "table2", "--dag", **streams)
    os.close(slave)
    graph, _ = process.communicate(timeout=120)
    os.close(master)
    assert "digraph" in graph


WAITS = "import pathlib, time\n\n\ndef wait():\n    pathlib.Path('begun').touch()\n    time.sleep(2)\n\n\n"
WAITS_AT = {
    "reads settings": "wait()\n",
    "has locked": "from nfpi.workflow import records\n\nrecords.write_keys = lambda *_: wait()\n",
}


@pytest.mark.parametrize("moment", WAITS_AT)
def test_ctrl_c_before_the_jobs_is_one_line(fresh_project: Project, moment: str) -> None:
    """Afterwards nothing is locked."""
    begun = fresh_project.folder / "begun"
    (fresh_project.folder / "slow.py").write_text(WAITS + WAITS_AT[moment])
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    arguments = (STATE, "--config", "extensions=[slow.py]")
    process = start_snakemake(fresh_project, *arguments, **streams)
    while not begun.exists():
        assert process.poll() is None
        time.sleep(0.01)
    assert (fresh_project.folder / "results/demo/.snakemake.lock").exists() == (moment == "has locked")
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert text.splitlines()[-1] == "stopped"
    assert "Traceback" not in text
    assert "Error" not in text
    fresh_project.run_snakemake(STATE)


def read_to_end(descriptor: int) -> bytes:
    """What a terminal got since; nothing at its end, which Linux tells as an error."""
    try:
        return os.read(descriptor, 4096)
    except OSError:
        return b""
