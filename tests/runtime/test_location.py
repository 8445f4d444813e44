"""`nfpi run`: Snakemake with the workflow of a clone, or with the copy in the wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from nfpi.cli import main

ROOT = Path(__file__).parents[2]
WHEEL = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"]["wheel"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The files of the wheel, as in site-packages."""
    folder: Path = tmp_path_factory.mktemp("site-packages")
    for package in WHEEL["packages"]:
        shutil.copytree(ROOT / package, folder / Path(package).name, ignore=shutil.ignore_patterns("__pycache__"))
    for source, target in WHEEL["force-include"].items():
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
        copy(ROOT / source, folder / target)
    return folder


def run(folder: Path, site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from nfpi.cli import main; sys.exit(main(sys.argv[1:]))"
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-c", code, "run", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)


def test_without_a_clone_snakemake_plans_with_the_workflow_of_the_wheel(installed, tmp_path):
    done = run(tmp_path, installed, "table2", "-n", "-q", "rules")
    assert done.returncode == 0, done.stderr
    assert "train_flow" in done.stdout + done.stderr
    assert not (tmp_path / "Snakefile").exists()


def test_without_a_clone_jobs_run(installed, tmp_path):
    images = "results/demo/digits/splits/test/images.npy"
    done = run(tmp_path, installed, images, "--cores", "1")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / images).is_file()


def test_the_workflow_of_the_current_folder_comes_first(monkeypatch, tmp_path):
    called: list[list[str]] = []
    monkeypatch.setattr(os, "execve", lambda _, command, environment: called.append(command))
    monkeypatch.setattr("nfpi.stages.command_line.run", lambda _: 0)
    monkeypatch.chdir(ROOT)
    main(["run", "table2", "-n"])
    monkeypatch.chdir(tmp_path)
    main(["run", "--profile=slurm", "table2"])
    [first, second] = called
    assert first[4:] == ["--snakefile", "Snakefile", "table2", "-n"]
    profile = ["--profile", str(ROOT / "profiles/slurm")]
    assert second[4:] == ["--snakefile", str(ROOT / "Snakefile"), *profile, "table2"]
