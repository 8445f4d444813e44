"""Results copied over others, drawn at random: the next call ends as a clean one, or names what stands in the way.

The stages are real ones, made small.
"""

from __future__ import annotations

import random
import re
import shutil
from pathlib import Path

import pytest

from nfpi.cli import main
from nfpi.runtime.manifests import SUFFIX, find_manifests, read_manifest

from .conftest import Project
from .test_keys import SETTINGS, finished  # noqa: F401

ROOT = Path("results/demo")
OTHER = SETTINGS | {
    "seeds": [1],
    "datasets": {"digits": SETTINGS["datasets"]["digits"] | {"split_seed": 5}},
    "training": SETTINGS["training"] | {"epochs": 3},
    "tables": {"table2": {"experiments": [{"dataset": "digits", "lambdas": [0, 50], "classifier": None}]}},
}


@pytest.fixture(scope="module")
def other(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:  # noqa: F811
    """Another clone, with results of other settings besides, also under the same names."""
    project = finished.copy(tmp_path_factory.mktemp("other") / "clone")
    project.run_snakemake("table2", "--cores", "2", overlay=OTHER | {"seeds": [0, 1]})
    return project


def list_run_folders(root: Path) -> list[Path]:
    return sorted(path.parent.relative_to(root) for path in root.rglob(f"metrics{SUFFIX}"))


def swap(draw: random.Random, project: Project, sources: list[Project]) -> str:
    """Put something of a source into another place, or its own one, of the project; say what."""
    source, target = draw.choice(sources).folder / ROOT, project.folder / ROOT
    copy = draw.choice([shutil.copy, shutil.copy2])
    kind = draw.choice(["file", "file with manifest", "run"])
    if kind == "run":
        one, two = draw.choice(list_run_folders(source)), draw.choice(list_run_folders(target))
        shutil.rmtree(target / two)
        shutil.copytree(source / one, target / two, copy_function=copy)
        return f"{copy.__name__} of {source / one} over {two}"
    name = draw.choice([path.name for path in find_manifests(target)])
    one, two = (draw.choice(sorted(path.relative_to(root) for path in root.rglob(name))) for root in (source, target))
    files = [file for file in read_manifest(source / one).files if draw.random() < 0.5 or kind != "file"]
    for file in files:
        (target / two.parent / file).parent.mkdir(parents=True, exist_ok=True)
        copy(source / one.parent / file, target / two.parent / file)
    if kind != "file":
        copy(source / one, target / two)
    return f"{copy.__name__} of {files} of {source / one}, {kind}, over {two}"


def read_table(project: Project) -> str:
    return (project.folder / ROOT / "tables/table2.md").read_text()


@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(3, 36))])
def test_no_swap_becomes_a_number(
    finished: Project,  # noqa: F811
    other: Project,
    tmp_path: Path,
    seed: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    draw, project = random.Random(seed), finished.copy(tmp_path / "clone")
    done = swap(draw, project, [finished, other])
    records = draw.choice(["kept", "lost", "of another clone"])
    if records != "kept":
        shutil.rmtree(project.folder / ".snakemake")
    if records == "of another clone":
        shutil.copytree(other.folder / ".snakemake", project.folder / ".snakemake")
    for _ in range(5):
        process = project.run_snakemake("table2", "--cores", "2", overlay=SETTINGS, check=False)
        if process.returncode == 0:
            break
        named = re.search(r"^nfpi: error: (\S+?): ", process.stdout, re.MULTILINE)
        assert named is not None, (done, process.stdout)
        path = project.folder / named[1]
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert read_table(project) == read_table(finished), (done, records)
    capsys.readouterr()
    if main(["verify", str(project.folder / ROOT)]):  # a fit in the folder of a run that has none
        for line in capsys.readouterr().out.splitlines():
            Path(line.partition(": ")[0]).unlink()
        assert main(["verify", str(project.folder / ROOT)]) == 0, (done, records, capsys.readouterr())
