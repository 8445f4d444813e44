"""A real SLURM runs the jobs here: the one that `.ci/slurm start` makes. On any other, nothing is submitted."""

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
from workflow.conftest import STUBS as WORKFLOW_STUBS
from workflow.conftest import Project, clone

STUBS = Path(__file__).parent / "stubs"
TINY_FLOWS = {"mef": {"num_flows": [1, 1], "num_blocks": [1, 1], "hidden_channels": [16, 16]}}
CUT_RUN = "results/demo/digits/mef/baseline/lambda=0/seed=0"
CUT = {
    "flows": TINY_FLOWS,
    "training": {"epochs": 12},
    "resources": {"train_flow": {"runtime": 1, "gpu": 0}},  # the two GPUs are for the demo
    "cluster": {"warn_seconds": 30},
}
"""A training with a limit of a minute, which cuts it wherever it rests."""
DEMO = {
    "flows": TINY_FLOWS,
    "training": {"epochs": 2},
    "generation": {"per_class": 20},
    "classifiers": {"resnet18": {"epochs": 1}},
    "tables": {"table2": {"experiments": [{"dataset": "digits", "lambdas": [1e4]}]}},
}
"""The demo, smaller."""

SlurmJob = dict[str, str]
"""What `scontrol show job` says of a job."""


@dataclass(frozen=True)
class Run:
    """A Snakemake that was started, and where what it prints goes."""

    process: subprocess.Popen[bytes]
    output: Path

    def end(self) -> str:
        """Wait for its end; what it printed."""
        self.process.wait(timeout=420)
        return self.output.read_text()

    def good_end(self) -> str:
        """The same, and fail if it did."""
        text = self.end()
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
        """Start Snakemake; `overlay` is laid over the profile's settings."""
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
        """Run Snakemake to its good end; what it printed."""
        return self.start(*arguments, overlay=overlay, **environment).good_end()

    def jobs(self) -> list[SlurmJob]:
        """All of this clone's jobs that SLURM remembers, in the order of submission."""
        text = subprocess.run(
            ["scontrol", "show", "job", "--details", "--oneliner"], capture_output=True, text=True, check=True
        ).stdout
        jobs = [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in text.splitlines()]
        return [job for job in jobs if job.get("WorkDir") == str(self.folder)]

    def jobs_of(self, rule: str) -> list[SlurmJob]:
        """Those of a rule."""
        return [job for job in self.jobs() if job["Comment"].startswith(f"rule_{rule}_wildcards_")]


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
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not so within {seconds} s"
        time.sleep(0.2)


def login_node(folder: Path, *, stub: bool) -> Submitting:
    """A clone whose stages are real, or make empty files only."""
    clone(folder)
    command = folder / "commands/nfpi"
    command.parent.mkdir()
    source = (WORKFLOW_STUBS if stub else STUBS) / "nfpi"
    command.write_text(f"#!{sys.executable}\n{source.read_text()}")
    command.chmod(0o755)
    return Submitting(folder.resolve())


@pytest.fixture(scope="session", autouse=True)
def slurm() -> None:
    """Skip where the SLURM to test on does not run."""
    if shutil.which("scontrol") is not None:
        answer = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True)
        if re.search(r"^ClusterName\s*= nfpi$", answer.stdout, flags=re.MULTILINE):
            return
    pytest.skip("no SLURM to test on: .ci/slurm start")


@pytest.fixture(scope="session", autouse=True)
def long_runs(slurm: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Submitting, Run]]]:
    """The two that take long, with their real stages; begun before all tests, and run beside them."""
    cut = login_node(tmp_path_factory.mktemp("cut") / "clone", stub=False)
    demo = login_node(tmp_path_factory.mktemp("demo") / "clone", stub=False)
    profile = ("--profile", "slurm", "--config", "preset=demo")
    many = ("--retries", "30")  # a slow machine takes more jobs
    runs = {
        "cut": (
            cut,
            cut.start(f"{CUT_RUN}/model/model.safetensors", *profile, *many, overlay=CUT, PAUSE="0.01", RESTS="3 6 9"),
        ),
        "demo": (demo, demo.start("table2", *profile, overlay=DEMO)),
    }
    yield runs
    for _, run in runs.values():
        run.stop()


@pytest.fixture
def controller() -> Iterator[Controller]:
    controller = Controller()
    yield controller
    if not controller.answers():
        controller.start()
