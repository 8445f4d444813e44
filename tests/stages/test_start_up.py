"""A stage imports what it needs, and no more: libraries that take as long to import as torch are left to others."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from .conftest import SmallRun

HEAVY = ("timm", "sklearn", "pandas", "lightning_fabric", "matplotlib", "torchvision", "huggingface_hub")

PROGRAM = """
import json, sys
from nfpi.cli import main
for command in json.loads(sys.argv[1]):
    assert main(command) == 0, command
loaded = [name for name in json.loads(sys.argv[2]) if name in sys.modules]
assert not loaded, loaded
assert "torch" in sys.modules
"""


def assert_imports_none_of(modules: tuple[str, ...], *commands: tuple[str, ...]) -> None:
    """One process runs all commands: what one imported, the last would find."""
    arguments = [json.dumps(commands), json.dumps(modules)]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture
def elsewhere(complete_run: SmallRun, tmp_path: Path) -> SmallRun:
    """The same run, which writes its results anew."""
    splits = tmp_path / "digits/splits"
    splits.parent.mkdir()
    splits.symlink_to(complete_run.splits)
    return replace(complete_run, root=tmp_path)


def test_stages_of_a_flow_import_none_of_the_libraries_that_others_need(elsewhere):
    """On a CPU in float32; an augmentation of the flow's images would need torchvision."""
    stages = ("start-flow", "fit-prior", "train-flow", "evaluate", "generate", "augment")
    assert_imports_none_of(HEAVY, *(elsewhere.make_command(stage) for stage in stages))


def test_stages_of_a_resnet18_import_none_of_the_libraries_that_others_need(complete_run, tmp_path):
    """torchvision has the network, nothing else is wanted."""
    trained = complete_run.make_command("train-classifier", output=tmp_path / "trained")
    tested = complete_run.make_command("test-classifier", tmp_path / "trained", output=tmp_path / "tested")
    assert_imports_none_of(tuple(name for name in HEAVY if name != "torchvision"), trained, tested)
