"""Real Snakemake in a copy of the workflow, whose stages are replaced by a stub."""

from __future__ import annotations

import functools
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from nfpi.config.experiments import FIGURES
from nfpi.config.resolution import Resolved, resolve
from nfpi.config.settings import merge
from nfpi.runtime.manifests import SUFFIX
from nfpi.stages.commands import STAGES
from nfpi.workflow import Planning

ROOT = Path(__file__).parents[2]
STUBS = Path(__file__).parent / "stubs"

PRINTED = "printed.txt"

Job = tuple[str, str]
"""A stage of the command line, and its output below results/{preset}."""


@dataclass(frozen=True)
class Project:
    """A folder with a copy of the workflow, as after `git clone`."""

    folder: Path

    @property
    def tools(self) -> Path:
        """Folder of the only commands on the path, so that a SLURM or a GPU of this machine does not matter."""
        tools = self.folder / "bin"
        if not tools.exists():
            tools.mkdir()
            for tool in ("bash", "sh", "which"):
                (tools / tool).symlink_to(str(shutil.which(tool)))
            write_stub(tools)
        return tools

    def add_command(self, name: str, script: str) -> None:
        """Add a Python script to the commands."""
        write_command(self.tools / name, script)

    def use_real_stages(self) -> None:
        """Replace the stub by the real stages."""
        self.add_command("nfpi", "import sys\nfrom nfpi.cli import main\nsys.exit(main())\n")

    def run_snakemake(
        self, *arguments: str, overlay: dict[str, Any] | None = None, check: bool = True, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run Snakemake; `overlay` is passed as --configfile."""
        if overlay is not None:
            self.write("overlay.yaml", overlay)
            arguments = (*arguments, "--configfile", "overlay.yaml")
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("SNAKEMAKE")}
        inherited |= {
            "PATH": str(self.tools),
            "PYTHONPATH": os.pathsep.join(filter(None, (str(STUBS), os.environ.get("PYTHONPATH", "")))),
            "XDG_CACHE_HOME": str(self.folder / ".cache"),
            "STUB_CALLS": str(self.folder / "calls.jsonl"),
        }
        process = call_snakemake(("--nocolor", *arguments), self.folder, inherited | environment)
        if check and process.returncode:
            pytest.fail(f"snakemake {shlex.join(arguments)}\n{process.stdout}")
        return process

    def plan_jobs(self, *arguments: str, overlay: dict[str, Any] | None = None) -> set[Job]:
        """Return the jobs of a dry run, from the commands that it prints; none may be printed twice."""
        text = self.run_snakemake(*arguments, "--dry-run", "--printshellcmds", overlay=overlay).stdout
        commands = re.findall(r"^Shell command: exec nfpi --log \S+ (.+)$", text, flags=re.MULTILINE)
        jobs = Counter(parse_job(*shlex.split(command)) for command in commands)
        assert not [job for job, times in jobs.items() if times > 1]
        total = re.search(r"^total +(\d+)$", text, flags=re.MULTILINE)
        targets = len(re.findall(r"^rule \w+:$", text, flags=re.MULTILINE))  # they run no command
        assert (int(total[1]) if total else 0) == len(jobs) + targets
        return set(jobs)

    def read_refusal(self, *arguments: str, overlay: dict[str, Any] | None = None, **environment: str) -> str:
        """Return the one line in which a dry run that must fail says why."""
        process = self.run_snakemake(*arguments, "--dry-run", overlay=overlay, check=False, **environment)
        assert process.returncode != 0
        assert "Traceback (most" not in process.stdout
        (line,) = re.findall(r"^ *((?:config|ConfigError): .*)$", process.stdout, re.MULTILINE)
        return str(line)

    def write(self, name: str, content: str | dict[str, Any]) -> Path:
        """Write settings or a text to a file of the project."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return path

    def read_calls(self) -> list[dict[str, Any]]:
        """Return the recorded calls of the stub, in the order of completion."""
        path = self.folder / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def list_finished_jobs(self) -> set[Job]:
        """Return the jobs of the recorded calls."""
        return {parse_job(call["stage"], *call["arguments"]) for call in self.read_calls()}

    def forget_calls(self) -> None:
        """Start a new list of calls."""
        (self.folder / "calls.jsonl").unlink(missing_ok=True)

    @property
    def printed(self) -> str:
        """What the call that made `finished_project` printed."""
        return (self.folder / PRINTED).read_text()

    def copy(self, folder: Path) -> Project:
        """Copy the project with the dates of its files and Snakemake's records of them."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Project(folder)


def call_snakemake(
    arguments: Sequence[str], folder: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run Snakemake by a fork."""
    server = start_server()
    assert server.stdin is not None
    assert server.stdout is not None
    with tempfile.NamedTemporaryFile("r", encoding="utf-8") as output:
        call = {"arguments": arguments, "folder": str(folder), "environment": environment, "output": output.name}
        print(json.dumps(call), file=server.stdin, flush=True)
        return subprocess.CompletedProcess(arguments, int(server.stdout.readline()), output.read())


@functools.cache
def start_server() -> subprocess.Popen[str]:
    """Start the process that forks; it ends with this one, by the end of its stdin."""
    command = [sys.executable, str(STUBS / "forked_snakemake.py")]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def write_command(path: Path, script: str) -> None:
    """Write a command that runs a Python script."""
    path.write_text(f"#!{sys.executable}\n{script}")
    path.chmod(0o755)


def write_stub(folder: Path) -> None:
    """Write the stub of nfpi, and beside it the outputs of each stage below its folder, with options in braces."""
    outputs = {stage.command: list(stage.get_output_files().values()) for stage in STAGES}
    for name in FIGURES:
        figure = FIGURES[name].settings
        outputs[f"figure {name}"] = [
            *(f"{picture}.{suffix}" for picture in figure.picture_names(name) for suffix in ("png", "pdf")),
            *([f"{name}.csv"] if figure.has_table else []),
            f"{name}{SUFFIX}",
        ]
    (folder / "outputs.json").write_text(json.dumps(outputs))
    write_command(folder / "nfpi", (STUBS / "nfpi").read_text())


def parse_job(stage: str, *arguments: str) -> Job:
    """Return (stage, output below results/{preset}) of a call of nfpi."""
    output = arguments[arguments.index("--output") + 1]
    if stage in ("table", "figure"):  # many of them fill one folder
        output += "/" + read_settings(arguments)["name"]
    return stage, re.sub(r"^results/[^/]+/", "", output)


def read_settings(arguments: Sequence[str]) -> dict[str, Any]:
    """Return the settings and the execution options of a call of nfpi, by name."""
    given = dict(itertools.pairwise(arguments))
    settings, execution = (json.loads(given.get(name, "{}")) for name in ("--settings", "--execution"))
    return merge(settings, execution)


def list_jobs_of_run(run: str, temperatures: Iterable[str] = ("1",)) -> set[Job]:
    """List all jobs of a run with a ResNet18, with its fit if its Gaussians are fitted."""
    jobs = {("train-flow", run), ("evaluate", run), ("test-classifier", f"{run}/resnet18")}
    if "/baseline" not in run:
        jobs.add(("fit-prior", f"{run}/fit"))
    for temperature in temperatures:
        jobs.add(("generate", f"{run}/generated/temperature={temperature}"))
        jobs.add(("train-classifier", f"{run}/resnet18/temperature={temperature}"))
    return jobs


def list_flow_jobs_of_run(run: str) -> set[Job]:
    """List the training and the evaluation of a run's flow."""
    return {("train-flow", run), ("evaluate", run)}


CLAIMED = {"table1", "table3", "table4", "table5"}
"""Tables of the demo whose rows its claims compare."""


def list_collection_jobs(*tables: str) -> set[Job]:
    """List the jobs that follow changed values of tables of the demo, without figures."""
    claims = {("claims", "results/demo")} if CLAIMED.intersection(tables) else set()
    return claims | {("table", f"tables/{name}") for name in tables}


COLLECTION: set[Job] = list_collection_jobs("table2") | {("figure", "figures/accuracy_against_weight")}
DEMO_RUNS = [
    "digits/mef/baseline/lambda=0/seed=0",
    *(f"digits/mef/fpi/lambda={weight}/seed=0" for weight in ("1000", "10000", "30000", "100000")),
]
DEMO: set[Job] = (
    {("prepare-data", "digits/splits"), ("start-flow", "digits/mef/initial/data/seed=0")}
    | set().union(*map(list_jobs_of_run, DEMO_RUNS))
    | COLLECTION
)


def clone_project(folder: Path) -> Project:
    """Copy the files of the workflow that `git clone` would bring."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("Snakefile", "config.yaml", "environment.yml"):
        shutil.copy2(ROOT / name, folder)
    for name in ("workflow", "profiles", "presets"):
        shutil.copytree(ROOT / name, folder / name, symlinks=True)
    for path in ROOT.iterdir():
        if path.is_symlink() and path.readlink().parts[0] == "profiles":
            (folder / path.name).symlink_to(path.readlink())
    return Project(folder)


def make_images(folder: Path, side: int = 8, count: int = 3) -> Path:
    """Write splits train and test of two classes, all image files of the same number of bytes."""
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("ant", "bee"):
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 256, (side, side, 3), np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{index}.bmp")
    return folder


def resolve_settings(preset: str = "demo", **overrides: Any) -> Resolved:
    """Resolve the settings of a call, without Snakemake."""
    return resolve(ROOT / "config.yaml", ROOT / "presets", {"preset": preset, **overrides})


def make_planning(preset: str = "demo", **overrides: Any) -> Planning:
    """Make the inputs and params of a call with these settings, as in the process of a job."""
    return Planning(resolve_settings(preset, **overrides), ROOT / "workflow/reference/paper.csv")


@pytest.fixture
def fresh_project(tmp_path: Path) -> Project:
    """A clone in which nothing has run."""
    return clone_project(tmp_path / "clone")


@pytest.fixture(scope="session")
def finished_project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A clone in which `snakemake table2` has run to its end; tests only plan in it."""
    project = clone_project(tmp_path_factory.mktemp("finished") / "clone")
    project.write(PRINTED, project.run_snakemake("table2", "--cores", "2").stdout)
    return project


@pytest.fixture(scope="session")
def complete_project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A clone in which `snakemake all` has run to its end; tests only plan in it."""
    project = clone_project(tmp_path_factory.mktemp("everything") / "clone")
    project.run_snakemake("all")
    return project
