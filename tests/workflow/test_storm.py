"""A storm of kills over every stage that writes: what is made in the end is what is made without one.

`NFPI_KILLS=36 NFPI_STORM_SEED=1 pytest -m long tests/workflow/test_storm.py -s` lets it last longer.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
import random
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from nfpi.cli import main

from .conftest import Project, clone_project
from .test_killed import SETTINGS as KILLED
from .test_killed import TIMES, list_processes_in, start_snakemake

KILLS = int(os.environ.get("NFPI_KILLS", "3"))
SEED = int(os.environ.get("NFPI_STORM_SEED", "0"))
TARGETS = ("table2", "table5", "residuals")
SETTINGS = KILLED | {
    "training": KILLED["training"] | {"epochs": 4},
    "generation": {"per_class": 8},
    "classifiers": {
        "resnet18": {"epochs": 1, "batch_size": 20},
        "swin": {"epochs": 1, "warmup_epochs": 0, "architecture": {"embed_dim": 8, "depths": [1], "num_heads": [1]}},
    },
    "figures": {"residuals": {"dataset": "digits", "lambdas": [100]}},
    "tables": {
        "table2": {"experiments": [{"dataset": "digits", "prior": "fpi", "lambdas": [100], "classifier": "resnet18"}]},
        "table5": {
            "experiments": [{"dataset": "digits", "lambdas": [100], "classifier": "swin", "augmentation": "nfa"}]
        },
    },
}
RULES = (
    *("table", "draw_residuals", "test_classifier", "test_classifier_on_real", "train_classifier"),
    *("train_classifier_on_real", "generate", "augment", "evaluate", "train_flow", "fit_prior", "start_flow"),
    "prepare_data",
)
"""All rules whose jobs write results; the last of the way of the data first, so that what they need is there."""
WAYS = ("all", "snakemake", "job")
"""What is killed: all of it, as by a power failure; Snakemake alone, whose job runs on; or the job."""


@pytest.fixture
def calm(tmp_path: Path) -> Project:
    """A clone in which all was made undisturbed."""
    project = clone_project(tmp_path / "calm")
    project.write("overlay.yaml", SETTINGS)
    project.use_real_stages()
    project.run_snakemake(*TARGETS, "--cores", "1", "--configfile", "overlay.yaml", OMP_NUM_THREADS="1")
    return project


@pytest.fixture
def storm(calm: Project, tmp_path: Path) -> Iterator[Project]:
    """A copy of it; nothing that was started there is left behind."""
    project = calm.copy(tmp_path / "storm")
    yield project
    kill(list_processes_in(project.folder.resolve()))


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="finds processes by /proc")
def test_a_storm_of_kills_changes_nothing(calm: Project, storm: Project, capfd: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(SEED)
    first = sorted(rng.sample(range(len(RULES)), min(KILLS, len(RULES))))
    order = itertools.chain((RULES[index] for index in first), itertools.cycle(RULES))
    killed: Counter[str] = Counter()
    printed = ""
    for tries, rule in enumerate(order):
        if killed.total() >= KILLS:
            break
        assert tries < 3 * KILLS, f"expected to hit {KILLS} jobs, did {dict(killed)}"
        way = rng.choice(WAYS)
        hit, text = kill_a_job(storm, rule, way, rng.uniform(0, 0.8 * longest(calm, rule)))
        printed += text
        killed[f"{rule} ({way})"] += hit
    storm.run_snakemake(*TARGETS, "--configfile", "overlay.yaml", "--unlock")
    printed += storm.run_snakemake(
        *TARGETS, "--cores", "1", "--configfile", "overlay.yaml", "--retries", "5", OMP_NUM_THREADS="1"
    ).stdout
    with capfd.disabled():
        print(f"\n{killed.total()} kills: {dict(killed)}")

    refusals = re.findall(r"nfpi: error: (.*)", printed)
    assert [line for line in refusals if "at the same time, received " not in line] == []
    assert results(storm) == results(calm)
    # No temporary file is left. The lock of a killed job stays, unheld, if the outputs to replace are valid.
    assert [path for path in storm.folder.glob("results/**/.*") if path.suffix != ".lock"] == []
    assert main(["verify", str(storm.folder / "results")]) == 0


def kill_a_job(project: Project, rule: str, way: str, delay: float) -> tuple[bool, str]:
    """Start the workflow, and kill a job of the rule some seconds after its start.

    Returns:
        whether the job was still running, and what Snakemake printed.
    """
    folder = project.folder.resolve()
    shutil.rmtree(folder / ".snakemake/locks", ignore_errors=True)  # what --unlock does, sooner
    before = set(jobs_of(folder, rule))
    output = project.folder / "printed.txt"
    with output.open("w") as stream:
        arguments = ("--cores", "1", *TARGETS, "--forcerun", rule, "--configfile", "overlay.yaml")
        snakemake = start_snakemake(project, *arguments, stdout=stream, stderr=stream)
    until = time.monotonic() + 300
    while not (jobs := set(jobs_of(folder, rule)) - before) and snakemake.poll() is None:
        assert time.monotonic() < until, output.read_text()
        time.sleep(0.01)
    time.sleep(delay)
    (job, *_) = jobs or {0}
    hit = job in jobs_of(folder, rule)
    if way == "job" and hit:
        kill([job])
        snakemake.wait(timeout=300)
    elif way == "snakemake" and hit:
        kill([snakemake.pid])
    else:
        kill(list_processes_in(folder))
    snakemake.wait(timeout=300)
    return hit, output.read_text()


def jobs_of(folder: Path, rule: str) -> list[int]:
    """The running jobs of a rule."""
    stage = "figure" if rule.startswith("draw_") else re.sub("_on_real", "", rule).replace("_", "-")
    real = rule.endswith("_on_real")
    return [
        process
        for process, command in list_processes_in(folder).items()
        if re.search(rf"nfpi --log \S+ {stage} ", command) and (real == ("swin" in command) or "classifier" not in rule)
    ]


def longest(project: Project, rule: str) -> float:
    """Seconds that the longest job of a rule took."""
    name = rule.removeprefix("draw_")
    times = [
        float(row["s"])
        for path in project.folder.glob("results/demo/benchmarks/**/*.tsv")
        if path.stem == name
        for row in csv.DictReader(path.open(), delimiter="\t")
    ]
    return max(times, default=3.0)


def kill(processes: object) -> None:
    for process in list(processes):  # type: ignore[call-overload]
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue


def results(project: Project) -> dict[str, object]:
    """Everything that was made, without what is measured by the clock."""
    found: dict[str, object] = {}
    root = project.folder / "results/demo"
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if not path.is_file() or re.match(r"(logs|benchmarks)/|.*\.(manifest\.json|pdf|html|lock)$", name):
            continue
        if path.name == "metrics.json":
            record = json.loads(path.read_text())
            record.pop("seconds")
            record["metrics"] = {key: value for key, value in record["metrics"].items() if key not in TIMES}
            found[name] = record
        elif path.suffix == ".csv":
            rows = [row for row in csv.DictReader(path.open()) if row.get("metric") not in TIMES]
            found[name] = [{key: value for key, value in row.items() if key not in TIMES | {"seconds"}} for row in rows]
        else:
            found[name] = path.read_bytes()
    return found
