"""A split of its own for each seed: `split_seed: per_seed`."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from nfpi.config.datasets import DatasetConfig
from nfpi.data.sources.published import load_digits
from nfpi.data.store import read_image_set

from .conftest import COLLECTION, DEMO, Job, Project, resolve_settings

PER_SEED = ("--config", "datasets={digits: {split_seed: per_seed}}", "seeds=[0, 1]")


def demo_of_seeds(*seeds: str) -> set[Job]:
    """The jobs of demo's table 2 with a split for each seed."""
    apart = {(stage, output) for stage, output in DEMO - COLLECTION if stage != "prepare-data"}
    moved = {(stage, output.replace("/seed=0", f"/seed={seed}")) for stage, output in apart for seed in seeds}
    return moved | {("prepare-data", f"digits/splits/seed={seed}") for seed in seeds} | COLLECTION


def data_of(project: Project, *arguments: str) -> dict[Job, str]:
    """The option `--data` of each job of a dry run that reads splits, and what makes them."""
    text = project.run_snakemake(*arguments, "--dry-run", "--printshellcmds").stdout
    commands = [line for line in text.splitlines() if line.startswith("Shell command: ") and " --data " in line]
    found = {}
    for line in commands:
        words = line.split()
        found[words[6], words[words.index("--output") + 1]] = words[words.index("--data") + 1]
    return found


def test_each_seed_has_its_split_and_nothing_else_changes(fresh_project: Project) -> None:
    assert fresh_project.plan_jobs("table2", *PER_SEED) == demo_of_seeds("0", "1")


def test_every_stage_reads_the_split_of_its_seed(fresh_project: Project) -> None:
    read = data_of(fresh_project, "table2", "table5", *PER_SEED)
    assert {stage for stage, _ in read} == {
        *("start-flow", "train-flow", "evaluate", "augment", "train-classifier", "test-classifier"),
    }
    for (_, output), data in read.items():
        seed = next(part for part in output.split("/") if part.startswith("seed="))
        assert data == f"results/demo/digits/splits/{seed}", output


def test_figures_show_the_split_of_the_first_seed() -> None:
    resolved = resolve_settings(datasets={"digits": {"split_seed": "per_seed"}}, seeds=[3, 4])
    for name in ("figure1", "figure2"):
        files = resolved.config.figures[name].files(resolved.config, resolved.layout)
        assert files["train"][0] == "results/demo/digits/splits/seed=3/train/images.npy"


def test_splits_are_those_of_their_seed_alone(fresh_project: Project) -> None:
    fresh_project.use_real_stages()
    files = [f"results/demo/digits/splits/seed={seed}/data.manifest.json" for seed in (0, 1)]
    fresh_project.run_snakemake(*files, *PER_SEED)
    shutil.copytree(fresh_project.folder / "results/demo/digits/splits", own := fresh_project.folder / "own")
    fresh_project.run_snakemake(
        "results/demo/digits/splits/data.manifest.json", "--config", "datasets={digits: {split_seed: 1}}"
    )
    common = fresh_project.folder / "results/demo/digits/splits"
    for split in ("train", "validation", "test"):
        for file in ("images.npy", "labels.npy", "meta.json"):
            assert (own / "seed=1" / split / file).read_bytes() == (common / split / file).read_bytes()
        assert not np.array_equal(images_of(own / "seed=0" / split), images_of(own / "seed=1" / split))
    all_images = load_digits(DatasetConfig(), fresh_project.folder).splits["train"][0]
    for seed in (0, 1):
        parts = [images_of(own / f"seed={seed}" / split) for split in ("train", "validation", "test")]
        assert sorted(image.tobytes() for part in parts for image in part) == sorted(
            map(np.ndarray.tobytes, all_images)
        )
    assert fresh_project.plan_jobs(*files, *PER_SEED) == set()  # they stay where those of all seeds are made


def images_of(folder: Path) -> np.ndarray:
    return np.asarray(read_image_set(folder).images)


def test_a_seed_that_draws_no_split_and_the_split_of_no_seed_are_refused() -> None:
    resolved = resolve_settings(datasets={"digits": {"split_seed": "per_seed"}}, seeds=[0, 2**32])
    for splits in (f"splits/seed={2**32}", "splits"):
        with pytest.raises(ValidationError, match="split_seed"):
            resolved.config.get_dataset("digits", splits)
