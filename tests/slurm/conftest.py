"""A real SLURM runs the jobs: only the one that `.ci/slurm start` makes, never that of a cluster."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from workflow.conftest import Project, clone_project, write_command, write_stub

STUBS = Path(__file__).parent / "stubs"
TINY_FLOWS = {"mef": {"num_flows": [1, 1], "num_blocks": [1, 1], "hidden_channels": [16, 16]}}
CUT_RUN = "results/demo/digits/mef/baseline/lambda=0/seed=0"
CUT = {
    "flows": TINY_FLOWS,
    "training": {"epochs": 12},
    "resources": {"train_flow": {"runtime": 1, "gpu": 0}},  # the two GPUs are for the demo
    "cluster": {"warn_seconds": 30},
}
"""A training with a time limit of a minute, so that SLURM stops it where it pauses."""
DEMO = {
    "flows": TINY_FLOWS,
    "training": {"epochs": 2},
    "generation": {"per_class": 20},
    "classifiers": {"resnet18": {"epochs": 1}},
    "tables": {"table2": {"experiments": [{"dataset": "digits", "lambdas": [1e4]}]}},
}
"""The demo, smaller."""

SlurmJob = dict[str, str]
"""A job in the words of `scontrol show job`."""


@dataclass(frozen=True)
class Run:
    """A Snakemake that was started, and the file that it prints to."""

    process: subprocess.Popen[bytes]
    output: Path

    def wait_for_end(self) -> str:
        """Wait until it has ended, and return what it printed."""
        self.process.wait(timeout=420)
        return self.output.read_text()

    def wait_for_success(self) -> str:
        """Wait until it has ended, and return what it printed; the test fails if it failed."""
        text = self.wait_for_end()
        if self.process.returncode:
            pytest.fail(text)
        return text

    def stop(self) -> None:
        """Interrupt it if it has not ended; it cancels its jobs."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(timeout=60)


class Submitting(Project):
    """A clone of the project on a login node."""

    def start(self, *arguments: str, overlay: dict[str, Any] | None = None, **environment: str) -> Run:
        """Start Snakemake; `overlay` overrides the settings of the profile."""
        if overlay is not None:
            self.write("overlay.yaml", overlay)
            profiles = [value for option, value in itertools.pairwise(arguments) if option == "--profile"]
            settings = [f"{profile}/settings.yaml" for profile in profiles]
            arguments = (*arguments, "--configfile", *settings, "overlay.yaml")
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("SNAKEMAKE")}
        path = [str(self.folder / "commands"), str(Path(sys.executable).parent), inherited["PATH"]]
        modules = [str(STUBS), inherited.get("PYTHONPATH", "")]
        output = self.folder / "printed.txt"
        with output.open("w") as stream:
            process = subprocess.Popen(
                [sys.executable, str(STUBS / "snakemake_polling.py"), "--nocolor", *arguments],
                cwd=self.folder,
                env=inherited
                | {
                    "PATH": os.pathsep.join(path),
                    "PYTHONPATH": os.pathsep.join(filter(None, modules)),
                    "XDG_CACHE_HOME": str(self.folder / ".cache"),
                    "OMP_NUM_THREADS": "1",
                    "NFPI_DEVICE": "cpu",  # the GPUs are pretended
                    "STUB_CALLS": str(self.folder / "calls.jsonl"),
                    "CONNECTIONS": str(self.folder / "connections"),
                    **environment,
                },
                stdout=stream,
                stderr=subprocess.STDOUT,
            )
        return Run(process, output)

    def submit(self, *arguments: str, overlay: dict[str, Any] | None = None, **environment: str) -> str:
        """Run Snakemake, which must succeed, and return what it printed."""
        return self.start(*arguments, overlay=overlay, **environment).wait_for_success()

    def list_jobs(self) -> list[SlurmJob]:
        """List all jobs of this clone that SLURM knows, in the order of submission."""
        text = subprocess.run(
            ["scontrol", "show", "job", "--details", "--oneliner"], capture_output=True, text=True, check=True
        ).stdout
        jobs = [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in text.splitlines()]
        return [job for job in jobs if job.get("WorkDir") == str(self.folder)]

    def list_jobs_of_rule(self, rule: str) -> list[SlurmJob]:
        """List the jobs of a rule."""
        return [job for job in self.list_jobs() if job["Comment"].startswith(f"rule_{rule}_wildcards_")]


class Controller:
    """The slurmctld of this machine."""

    def __init__(self) -> None:
        shown = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, check=True).stdout
        (path,) = re.findall(r"^SlurmctldPidFile\s*= (\S+)$", shown, flags=re.MULTILINE)
        self._pid_file = Path(path)

    def answers(self) -> bool:
        return subprocess.run(["scontrol", "ping"], capture_output=True).returncode == 0

    def stop(self) -> None:
        os.kill(int(self._pid_file.read_text()), signal.SIGTERM)
        wait_until(lambda: not self._pid_file.exists() and not self.answers())

    def start(self) -> None:
        subprocess.run(["slurmctld"], check=True)
        wait_until(self.answers)


def wait_until(condition: Callable[[], bool], seconds: float = 240) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"the condition does not hold within {seconds} s"
        time.sleep(0.2)


def make_login_node(folder: Path, *, stub: bool) -> Submitting:
    """Clone the project with the real stages, or with the stub, which makes empty files."""
    clone_project(folder)
    commands = folder / "commands"
    commands.mkdir()
    if stub:
        write_stub(commands)
    else:
        write_command(commands / "nfpi", (STUBS / "nfpi").read_text())
    return Submitting(folder.resolve())


@pytest.fixture(scope="session", autouse=True)
def slurm() -> None:
    """Skip unless the SLURM for tests is running."""
    if shutil.which("scontrol") is not None:
        answer = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True)
        if re.search(r"^ClusterName\s*= nfpi$", answer.stdout, flags=re.MULTILINE):
            return
    pytest.skip("no SLURM to test on: .ci/slurm start")


@pytest.fixture(scope="session", autouse=True)
def long_runs(
    slurm: None, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[dict[str, tuple[Submitting, Run]]]:
    """The long runs, of real stages, that tests ask for; they are started before all tests and run beside them."""
    demo = make_login_node(tmp_path_factory.mktemp("demo") / "clone", stub=False)
    profile = ("--profile", "slurm", "--config", "preset=demo")
    many = ("--retries", "30")  # a slow machine takes more jobs
    runs = {"demo": (demo, demo.start("table2", *profile, overlay=DEMO))}
    if any(item.path.name == "test_resume.py" for item in request.session.items):
        cut = make_login_node(tmp_path_factory.mktemp("cut") / "clone", stub=False)
        target = f"{CUT_RUN}/model/model.safetensors"
        runs["cut"] = cut, cut.start(target, *profile, *many, overlay=CUT, PAUSE="0.01", RESTS="3 6 9")
    yield runs
    for _, run in runs.values():
        run.stop()


@pytest.fixture
def controller(long_runs: dict[str, tuple[Submitting, Run]]) -> Iterator[Controller]:
    """The controller, to be stopped once the demo has ended: a job that starts meanwhile fails, and is run again."""
    long_runs["demo"][1].wait_for_end()
    controller = Controller()
    yield controller
    if not controller.answers():
        controller.start()
