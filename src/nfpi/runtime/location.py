"""Where the Snakefile, config.yaml, presets and profiles are; and `nfpi run`, which hands over to Snakemake."""

from __future__ import annotations

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
    found = next((folder for folder in places if is_workflow(folder)), None)
    if found is None:
        raise FileNotFoundError(f"Snakefile: expected one in {' or '.join(map(str, places))}, received none")
    return found


def is_workflow(folder: Path) -> bool:
    """Return whether a folder has the Snakefile of this workflow, and not of another one."""
    return all((folder / name).exists() for name in ("Snakefile", CONFIG_FILE, "presets", "workflow/reference"))


def run_snakemake(arguments: list[str]) -> None:
    """Replace this process by Snakemake, in the current folder, with the workflow of :func:`find_workflow`.

    `--profile NAME` may name one of its profiles, such as slurm.

    Raises:
        FileNotFoundError: there is no workflow.
    """
    folder = find_workflow()
    given = [
        str(folder / "profiles" / name) if option == "--profile" and (folder / "profiles" / name).is_dir() else name
        for option, name in zip(["", *arguments], arguments, strict=False)
    ]
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(folder / "Snakefile"), *given]
    os.execv(sys.executable, command)
