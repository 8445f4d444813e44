"""A job of the workflow waits for a process that does the same, and takes what it made; by hand it is refused."""

from __future__ import annotations

import logging
import multiprocessing
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from nfpi.runtime import locks
from nfpi.runtime.checkpoints import Checkpoints
from nfpi.runtime.manifests import read_manifest
from nfpi.runtime.tensors import load_tensors

from .conftest import TRAINING, SmallRun, call, check_call

FORK = multiprocessing.get_context("fork")
LATER = 3
"""The step that the first process rests after."""


@dataclass
class Jobs:
    """Two jobs that train the same flow; the first one rests in mid-training until it is told to continue."""

    run: SmallRun
    folder: Path
    processes: list[Any] = field(default_factory=list)

    def start(self, *, rest: bool = False, key: str = "", **changes: Any) -> Path:
        """Start a job; its log."""
        log = self.folder / f"{len(self.processes)}.log"
        training = TRAINING | {"checkpoint_minutes": 1e-6} | changes
        command = ("--log", log, *self.run.make_command("train-flow", prior=None, training=training, key=key or None))
        process = FORK.Process(target=self._work, args=(command, rest))
        process.start()
        self.processes.append(process)
        return log

    def _work(self, command: tuple[object, ...], rest: bool) -> None:
        save, steps = Checkpoints.save, 0

        def resting(checkpoints: Checkpoints, *content: Any) -> None:
            nonlocal steps
            steps += 1
            save(checkpoints, *content)
            if steps == LATER:
                (self.folder / "rests").touch()
                wait_until((self.folder / "go").exists)

        if rest:
            Checkpoints.save = resting  # type: ignore[method-assign]
        locks._RETRY_SECONDS = 0.05
        logging.root.handlers.clear()  # pytest's
        raise SystemExit(call(*command))

    def both_wait(self, key: str = "", **changes: Any) -> Path:
        """Start one that rests and one that waits for it; the log of the second."""
        self.start(rest=True, key=key)
        wait_until((self.folder / "rests").exists)
        log = self.start(key=key, **changes)
        wait_until(lambda: log.exists() and "waiting until it ends" in log.read_text())
        return log

    def go_on(self) -> None:
        """Let the first one continue."""
        (self.folder / "go").touch()

    def status(self, index: int) -> int:
        """The status that a job ends with."""
        self.processes[index].join(timeout=60)
        assert self.processes[index].exitcode is not None
        return int(self.processes[index].exitcode)


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def jobs(started_run: SmallRun, tmp_path: Path) -> Iterator[Jobs]:
    shutil.copytree(started_run.splits, replace(started_run, root=tmp_path).splits)
    shutil.copytree(started_run.initial, replace(started_run, root=tmp_path).initial)
    jobs = Jobs(replace(started_run, root=tmp_path, weight=0), tmp_path)
    yield jobs
    for process in jobs.processes:
        process.kill()


@pytest.fixture
def alone(jobs: Jobs, tmp_path: Path) -> Path:
    """The model of a training by itself."""
    output = tmp_path / "alone"
    check_call(*jobs.run.make_command("train-flow", prior=None, output=output))
    return output / "model"


def test_the_second_waits_and_takes_what_the_first_made(jobs: Jobs, alone: Path) -> None:
    log = jobs.both_wait(read_manifest(alone.parent / "model.manifest.json").key)
    assert f"at the same time, received process {jobs.processes[0].pid} on " in log.read_text()
    jobs.go_on()
    assert [jobs.status(0), jobs.status(1)] == [0, 0]
    assert "the other process has made it" in log.read_text()
    assert "epoch" not in log.read_text()
    assert (jobs.run.model / "model.safetensors").read_bytes() == (alone / "model.safetensors").read_bytes()


def test_where_the_first_is_killed_the_second_resumes(jobs: Jobs, alone: Path) -> None:
    log = jobs.both_wait()
    jobs.processes[0].kill()
    assert jobs.status(1) == 0
    assert f"resuming from step {LATER + begun_steps(jobs)}" in log.read_text()
    assert (jobs.run.model / "model.safetensors").read_bytes() == (alone / "model.safetensors").read_bytes()


def begun_steps(jobs: Jobs) -> int:
    return int(load_tensors(jobs.run.initial / "state.safetensors")[1]["step"])


def test_a_second_of_other_settings_trains_when_the_first_has_ended(jobs: Jobs) -> None:
    log = jobs.both_wait(epochs=4)
    jobs.go_on()
    assert [jobs.status(0), jobs.status(1)] == [0, 0]
    assert "epoch 4/4" in log.read_text()


def test_a_signal_ends_the_wait(jobs: Jobs) -> None:
    jobs.both_wait()
    jobs.processes[1].terminate()
    assert jobs.status(1) == 75
    jobs.go_on()
    assert jobs.status(0) == 0


def test_by_hand_the_second_is_refused(jobs: Jobs, capsys: pytest.CaptureFixture[str]) -> None:
    jobs.start(rest=True)
    wait_until((jobs.folder / "rests").exists)
    assert call(*jobs.run.make_command("train-flow", prior=None)) == 1
    assert f"received process {jobs.processes[0].pid} on " in capsys.readouterr().err
