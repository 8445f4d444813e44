"""Where the Snakefile, config.yaml, presets and profiles are; and `nfpi run`, which hands over to Snakemake."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import nfpi

CONFIG_FILE = "config.yaml"


def find_workflow() -> Path:
    """Return the folder of the Snakefile: this folder, the clone of an editable installation, or the installed package.

    Raises:
        FileNotFoundError: there is none.
    """
    package = Path(nfpi.__file__).parent
    places = (Path(), package.parents[1], package / "workflow/files")
    found = next((folder for folder in places if _is_workflow(folder)), None)
    if found is None:
        raise FileNotFoundError(f"Snakefile: expected one in {' or '.join(map(str, places))}, received none")
    return found


def _is_workflow(folder: Path) -> bool:
    """Return whether a folder has the Snakefile of this workflow, and not of another one."""
    return all((folder / name).exists() for name in ("Snakefile", CONFIG_FILE, "presets", "workflow/reference"))


def run_snakemake(arguments: list[str]) -> None:
    """Replace this process by Snakemake, in the current folder, with the workflow of :func:`find_workflow`.

    `--profile NAME` may name one of its profiles, such as slurm. Jobs find the `nfpi` beside this Python.

    Raises:
        FileNotFoundError: there is no workflow.
    """
    folder, parser = find_workflow(), argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--profile")
    known, others = parser.parse_known_args(arguments)
    profile = folder / "profiles" / (known.profile or "")
    given = ["--profile", str(profile if profile.is_dir() else known.profile)] if known.profile else []
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    command = [sys.executable, "-P", "-m", "snakemake", "--snakefile", str(folder / "Snakefile"), *given, *others]
    os.execve(sys.executable, command, {**os.environ, "PATH": path})
