"""The log and the state of a job, and that what a job ends with is seen even where no log can be written."""

from __future__ import annotations

import json
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

FAILING = ("evaluate", "--data", "d", "--output", "o")
ERROR = "evaluate.model: Field required"
LINE = f"nfpi: error: {ERROR}\n"


def run(log: Path, *arguments: str, limit: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run nfpi with a log; `limit`: bytes that a file may have, which stands for a full disk."""

    def set_limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-m", "nfpi.cli", "--log", str(log), *arguments]
    return subprocess.run(command, capture_output=True, text=True, preexec_fn=set_limit)


def read_record(log: Path) -> dict[str, object]:
    return json.loads(log.with_name(f"{log.name}.json").read_text())


def test_the_state_of_a_job_counts_its_attempts_until_one_ends_well(tmp_path):
    log = tmp_path / "stage.log"
    for number in (1, 2):
        log.unlink(missing_ok=True)  # as Snakemake does before it tries a job again
        done = run(log, *FAILING)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", LINE)
        first, said = log.read_text().splitlines(keepends=True)
        assert said == LINE
        found = re.fullmatch(r"attempt (\d) of evaluate, \d{4}-\d\d-\d\d \d\d:\d\d:\d\d, \S+?(?:; (.*))?\n", first)
        assert found is not None
        assert (found[1], found[2]) == (str(number), f"attempt 1 failed: {ERROR}" if number > 1 else None)
        assert read_record(log) | {"state": "failed", "attempt": number, "error": ERROR} == read_record(log)
    log.unlink()
    for number in (3, 1):  # a job that had ended well begins anew
        assert run(log, "targets", "--preset", "demo").returncode == 0
        assert read_record(log) | {"state": "done", "attempt": number, "error": ""} == read_record(log)


ENDINGS = {
    "failed": "print_error('lost'); os._exit(1)",
    "running": "os.kill(os.getpid(), 9)",
    "stopped": "return 75",
    "done": "return 0",
}


@pytest.mark.parametrize("state", ENDINGS)
def test_however_a_job_ends_its_state_says_so_and_files_with_other_names_stay(tmp_path, state):
    program = f"""
import os, sys
from pathlib import Path
from nfpi.runtime.job_log import print_error, record_epoch, run_with_log
def work():
    record_epoch(2, 40)
    record_epoch(3, 40)
    {ENDINGS[state]}
sys.exit(run_with_log(Path("metrics.log"), "work", work))
"""
    (tmp_path / "metrics.json").write_text("a result")
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path)
    record = read_record(tmp_path / "metrics.log")
    assert (record["state"], record["error"]) == (state, "lost" if state == "failed" else "")
    assert (record["epoch"], record["epochs"]) == (3, 40)
    assert 0 < record["epoch_seconds"] < 10
    assert (tmp_path / "metrics.json").read_text() == "a result"


def test_the_log_has_the_output_of_libraries_and_child_processes(tmp_path):
    program = """
import os, subprocess, sys
from pathlib import Path
from nfpi.runtime.job_log import run_with_log
def work():
    print("λ on stdout")
    print("stderr", file=sys.stderr)
    os.write(1, b"descriptor 1\\n")
    subprocess.run(["sh", "-c", "echo child; echo its stderr >&2"])
    raise RuntimeError("CUDA error: illegal access\\nCompile with TORCH_USE_CUDA_DSA")
sys.exit(run_with_log(Path("job.log"), "work", work))
"""
    environment = {"LC_ALL": "C", "PYTHONIOENCODING": "latin-1"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert (done.returncode, done.stdout) == (1, "")
    line = "nfpi: error: RuntimeError: CUDA error: illegal access Compile with TORCH_USE_CUDA_DSA"
    assert done.stderr == f"{line} (its traceback: job.log)\n"
    lines = (tmp_path / "job.log").read_text(encoding="utf-8").splitlines()
    assert lines[1:6] == ["λ on stdout", "stderr", "descriptor 1", "child", "its stderr"]
    assert "Traceback (most recent call last):" in lines
    assert lines[-3:] == ["RuntimeError: CUDA error: illegal access", "Compile with TORCH_USE_CUDA_DSA", line]


@pytest.mark.parametrize(("log", "limit"), [("stage.log", 0), ("stage.log", 60), ("file/stage.log", None)])
def test_a_log_that_cannot_be_written_or_opened_gives_way_to_stderr(tmp_path, log, limit):
    (tmp_path / "file").touch()
    done = run(tmp_path / log, *FAILING, limit=limit)
    assert done.returncode == 1
    assert done.stderr.endswith(LINE)
    assert done.stderr.count("nfpi: error") == 1


def test_a_job_does_not_fail_because_its_log_cannot_be_written(tmp_path):
    program = """
import resource, signal, sys
from pathlib import Path
from nfpi.runtime.job_log import run_with_log

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (60, 60))
sys.exit(run_with_log(Path("job.log"), "train-flow", lambda: print("a line of the training" * 10) or 0))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_no_link_in_the_place_of_a_log_is_followed(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "job.log").symlink_to("mine")
    run(tmp_path / "job.log", "export", "--images", "missing", "--output", str(tmp_path / "new"))
    assert (tmp_path / "mine").read_text() == "mine"
