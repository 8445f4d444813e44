"""What a GPU would run, on fake CUDA tensors: no two devices in one operation, no wait of the host in a step.

And how many operations and bytes a step takes, and what autograd keeps: what a GPU's time and memory depend on. The
scenarios run in a process of their own, because torch looks for devices when it is imported.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

HERE = Path(__file__).parent
COMPILER = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
pytestmark = [
    pytest.mark.skipif(COMPILER is None, reason="no C++ compiler"),
    pytest.mark.skipif(sys.platform != "linux", reason="the hooks are loaded as a library of Linux"),
    pytest.mark.skipif(torch.version.cuda is not None, reason="a build for CUDA has hooks of its own"),
]


@pytest.fixture(scope="module")
def hooks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that torch is told to load."""
    root = Path(torch.__file__).parent
    hooks = tmp_path_factory.mktemp("fake_cuda") / "hooks.so"
    include = [f"-I{root}/include", f"-I{root}/include/torch/csrc/api/include"]
    link = [f"-L{root}/lib", "-lc10", "-ltorch_cpu"]
    assert COMPILER is not None
    build = [COMPILER, "-std=c++20", "-O0", "-w", "-fPIC", "-shared", *include, str(HERE / "hooks.cpp")]
    built = subprocess.run([*build, "-o", str(hooks), *link], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-3000:]
    return hooks


def count(hooks: Path, *scenarios: str) -> dict[str, Any]:
    """Run scenarios, and return what each counted."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / "scenarios.py"), str(hooks), *scenarios]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stderr[-3000:]
    counted: dict[str, Any] = json.loads(ran.stdout)
    return counted


USES = ("evaluate", "statistics", "sample", "augment")
STEPS = {
    "train_flow 32-true": (760, 19.4e6, 0.47e6),
    "train_flow bf16-mixed": (810, 19.4e6, 0.47e6),
    "resnet18": (210, 1.09e9, 40e6),
    "swin": (360, 41e6, 3.5e6),
    "eva02": (520, 6.8e6, 0.41e6),
}
"""Most operations, bytes read and written, and bytes kept for the backward pass, of one step."""
OF_PAPER = (7400, 342e9, 18.5e9)


@pytest.fixture(scope="module")
def found(hooks: Path) -> dict[str, Any]:
    """What each scenario but that of the paper's flow counted."""
    return count(hooks, *USES, *STEPS)


@pytest.mark.parametrize("scenario", USES)
def test_all_tensors_are_on_one_device(found, scenario):
    assert "error" not in found[scenario], found[scenario]
    assert found[scenario]["operations"] > 100


def assert_at_most(counted: dict[str, Any], operations: float, moved: float, saved: float) -> None:
    assert "error" not in counted, counted
    assert operations / 3 < counted["operations"] <= operations
    assert counted["bytes"] <= moved
    assert counted["saved"] <= saved


@pytest.mark.parametrize("scenario", STEPS)
def test_a_step_takes_no_more_than_this_and_never_makes_the_host_wait(found, scenario):
    assert_at_most(found[scenario], *STEPS[scenario])
    assert found[scenario]["host_reads"] == []


@pytest.mark.parametrize("scenario", ["evaluate", "statistics", "sample"])
def test_a_batch_makes_the_host_wait_a_few_times(found, scenario):
    """Two batches each, of a flow with three couplings, each of which reads the bound of its series."""
    assert len(found[scenario]["host_reads"]) <= 20


@pytest.mark.long
def test_a_step_of_the_papers_flow(hooks):
    """18.8 TFLOP: three times 512 images through 42.8 M weights on 16×16, 8×8 and 4×4 pixels."""
    counted = count(hooks, "train_flow paper")["train_flow paper"]
    assert_at_most(counted, *OF_PAPER)
    assert counted["host_reads"] == []
    assert counted["flops"] == pytest.approx(18.8e12, rel=0.02)
