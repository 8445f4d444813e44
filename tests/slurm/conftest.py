"""A real SLURM runs the jobs here: the one that `.ci/slurm start` makes. On any other, nothing is submitted."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from workflow.conftest import STUBS as WORKFLOW_STUBS
from workflow.conftest import Project, clone

STUBS = Path(__file__).parent / "stubs"
CUT_LEAF = "results/demo/digits/baseline/lambda=0/seed=0"
CUT_SETTINGS = (
    "flow={num_flows: [1, 1], num_blocks: [1, 1], hidden_channels: [16, 16]}",
    "training={epochs: 12}",
    "resources={train_flow: {runtime: 1}}",
    "cluster={warn_seconds: 30}",
)

SlurmJob = dict[str, str]
"""What `scontrol show job` says of a job."""


class Submitting(Project):
    """A clone of the project on a login node."""

    def start(
        self, *arguments: str, overlay: dict[str, Any] | None = None, **environment: str
    ) -> subprocess.Popen[str]:
        """Start Snakemake; `overlay` is laid over the profile's settings. What it prints goes to its output."""
        if overlay is not None:
            (self.folder / "overlay.yaml").write_text(yaml.safe_dump(overlay))
            arguments = (*arguments, "--configfile", "slurm/settings.yaml", "overlay.yaml")
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("SNAKEMAKE")}
        path = [str(self.folder / "commands"), str(Path(sys.executable).parent), inherited["PATH"]]
        modules = [str(STUBS), inherited.get("PYTHONPATH", "")]
        return subprocess.Popen(
            [sys.executable, str(STUBS / "snakemake_polling.py"), "--nocolor", *arguments],
            cwd=self.folder,
            env=inherited
            | {
                "PATH": os.pathsep.join(path),
                "PYTHONPATH": os.pathsep.join(filter(None, modules)),
                "XDG_CACHE_HOME": str(self.folder / ".cache"),
                "OMP_NUM_THREADS": "1",
                "STUB_CALLS": str(self.folder / "calls.jsonl"),
                "CONNECTIONS": str(self.folder / "connections"),
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def submit(self, *arguments: str, overlay: dict[str, Any] | None = None, **environment: str) -> str:
        """Run Snakemake to its good end; what it printed."""
        return self.finish(self.start(*arguments, overlay=overlay, **environment))

    def finish(self, process: subprocess.Popen[str]) -> str:
        """Wait for the good end of a Snakemake that was started; what it printed."""
        text, _ = process.communicate(timeout=180)
        if process.returncode:
            pytest.fail(text)
        return text

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


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
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
def cut_training(
    slurm: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Submitting, subprocess.Popen[str]]]:
    """A training that its time limit cuts; begun before all other tests, as it takes a minute in which it rests."""
    project = login_node(tmp_path_factory.mktemp("cut") / "clone", stub=False)
    process = project.start(
        *("--profile", "slurm", f"{CUT_LEAF}/flow.safetensors", "--config", "preset=demo", *CUT_SETTINGS),
        PAUSE="0.32",
    )
    yield project, process
    if process.poll() is None:
        process.send_signal(signal.SIGINT)  # cancels its jobs
        process.communicate(timeout=30)
