"""Data sets of the user's own: a change of their files is seen, and what is wrong with them is said in the dry run."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from nfpi.cli import main
from nfpi.config.base import ConfigError
from nfpi.data.sources import files
from nfpi.stages.prepare_data import PrepareData
from nfpi.workflow import Planning

from .conftest import Project, clone_project, make_images, make_planning, resolve_settings

MINE = "mine/mef/baseline/lambda=0/seed=0"
SEEN = {"dataset": "mine", "splits": "splits"}
ALL = {
    ("prepare-data", "mine/splits"),
    ("start-flow", "mine/mef/initial/data/seed=0"),
    *(("train-flow", MINE), ("evaluate", MINE)),
    ("table", "tables/own"),
}


def settings(folder: Path | str, **dataset: Any) -> dict[str, Any]:
    """A table on a data set of the user's own."""
    experiment = {"dataset": "mine", "lambdas": [0], "classifier": None}
    return {
        "datasets": {"mine": {"source": "imagefolder", "folder": str(folder), **dataset}},
        "tables": {"own": {"metrics": ["nf_acc"], "experiments": [experiment]}},
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Path]:
    """A clone in which the table was made, and the images."""
    place = tmp_path_factory.mktemp("own")
    project, images = clone_project(place / "clone"), make_images(place / "images")
    project.run_snakemake("own", overlay=settings(images))
    assert project.list_finished_jobs() == ALL
    return project, images


@pytest.fixture
def copied(made: tuple[Project, Path], tmp_path: Path) -> tuple[Project, Path]:
    """Copies of both that a test may change; all files of the images have other dates."""
    project, images = made
    return project.copy(tmp_path / "clone"), Path(
        shutil.copytree(images, tmp_path / "elsewhere", copy_function=shutil.copy)
    )


def edit(images: Path) -> None:
    """Other pixels, of the same size in bytes and the same date."""
    file = images / "train/bee/1.bmp"
    before = file.stat()
    Image.new("RGB", (8, 8), (1, 2, 3)).save(file)
    assert file.stat().st_size == before.st_size
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def find_files(splits: str = "splits", **changes: Any) -> dict[str, list[str]]:
    """Return the inputs of prepare_data, as in Snakemake's main process."""
    planning = Planning(resolve_settings(**changes), Path("paper.csv"), force=lambda path: None)
    return planning.inputs(PrepareData)({"dataset": "mine", "splits": splits})


CHANGES: dict[str, Callable[[Path], object]] = {
    "added": lambda images: shutil.copy(images / "train/ant/0.bmp", images / "train/ant/3.bmp"),
    "removed": lambda images: (images / "test/ant/0.bmp").unlink(),
    "renamed": lambda images: (images / "train/ant/0.bmp").rename(images / "train/ant/9.bmp"),
    "edited": edit,
    "exchanged": lambda images: exchange(images / "train/ant/0.bmp", images / "train/bee/0.bmp"),
}


def exchange(one: Path, other: Path) -> None:
    """Let two files have each other's names."""
    one.rename(one.with_suffix(".kept"))
    other.rename(one)
    one.with_suffix(".kept").rename(other)


def test_images_that_stay_are_not_read_again(made: tuple[Project, Path]) -> None:
    project, images = made
    assert project.plan_jobs("own", overlay=settings(images)) == set()


def test_a_copy_elsewhere_is_the_same_data_set(copied: tuple[Project, Path]) -> None:
    project, images = copied
    assert project.plan_jobs("own", overlay=settings(images)) == set()


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_the_images_makes_all_again(copied: tuple[Project, Path], change: str) -> None:
    project, images = copied
    CHANGES[change](images)
    assert project.plan_jobs("own", overlay=settings(images)) == ALL


def test_changed_images_make_all_again_once(copied: tuple[Project, Path]) -> None:
    project, images = copied
    edit(images)
    assert project.plan_jobs("table2", overlay=settings(images)) & ALL == set()  # of other data sets
    project.forget_calls()
    project.run_snakemake("own", overlay=settings(images))
    assert project.list_finished_jobs() == ALL
    assert project.plan_jobs("own", overlay=settings(images)) == set()


def test_an_unreadable_image_is_named_and_the_data_set_is_made_once_it_is_gone(
    fresh_project: Project, tmp_path: Path
) -> None:
    """The real stage reads the images; the others are stubs."""
    project, images = fresh_project, make_images(tmp_path / "images", count=6)
    stub = (project.tools / "nfpi").rename(project.tools / "stub")
    real = "import os, sys\nif sys.argv[3] != 'prepare-data':\n    os.execv({!r}, sys.argv)\n{}"
    project.add_command("nfpi", real.format(str(stub), "from nfpi.cli import main\nsys.exit(main())\n"))
    overlay = settings(images, validation_fraction=0.34)
    project.run_snakemake("own", overlay=overlay)
    unreadable = images / "train/ant/damaged.bmp"
    unreadable.write_bytes(b"none")
    process = project.run_snakemake("own", overlay=overlay, check=False)
    assert len(re.findall(rf"^nfpi: error: {unreadable}: .*$", process.stdout, re.MULTILINE)) == 1, process.stdout
    assert re.search(r"^ *changed: the folder that it is made from$", process.stdout, re.MULTILINE)
    assert project.plan_jobs("own", overlay=overlay) == ALL
    unreadable.unlink()
    assert "Nothing to be done" in project.run_snakemake("own", overlay=overlay).stdout


def test_a_change_that_is_undone_makes_nothing_again(copied: tuple[Project, Path]) -> None:
    project, images = copied
    file = images / "train/bee/1.bmp"
    content = file.read_bytes()
    edit(images)
    assert project.plan_jobs("own", overlay=settings(images)) == ALL
    file.write_bytes(content)
    assert project.plan_jobs("own", overlay=settings(images)) == set()


@pytest.mark.parametrize("expected", [{"classes": 3}, {"shape": [8, 8, 1]}], ids=["classes", "shape"])
def test_a_change_of_what_is_expected_of_the_images_reads_them_again(
    made: tuple[Project, Path], expected: dict[str, Any]
) -> None:
    """Reading compares it with the images, see tests/data/test_prepare.py."""
    project, images = made
    assert project.plan_jobs("own", overlay=settings(images, **expected)) == ALL


def test_what_was_remembered_of_the_images_may_be_lost(copied: tuple[Project, Path]) -> None:
    project, images = copied
    for file in (project.folder / "results/downloads").glob(".digest-*"):
        file.write_bytes(b"damaged")
    assert project.plan_jobs("own", overlay=settings(images)) == set()


def test_an_archive_is_a_file_that_is_compared(fresh_project: Project, tmp_path: Path) -> None:
    images = make_images(tmp_path / "images")
    archive = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", images))
    project = fresh_project
    project.run_snakemake("own", overlay=settings(archive))
    copy = tmp_path / "elsewhere.zip"
    copy.write_bytes(archive.read_bytes())
    assert project.plan_jobs("own", overlay=settings(copy)) == set()
    CHANGES["added"](images)
    other = shutil.make_archive(str(tmp_path / "other"), "zip", images)
    assert project.plan_jobs("own", overlay=settings(other)) == ALL


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (lambda images: shutil.rmtree(images / "test"), "received train"),
        (lambda images: (images / "test/bee").rename(images / "test/cow"), "expected the same classes as in train"),
        (lambda images: [file.unlink() for file in (images / "train/ant").iterdir()], "train/ant: expected images"),
        (
            lambda images: [(images / split / "bee").rename(images / f"{split}.bee") for split in ("train", "test")],
            "received only",
        ),
        (lambda images: (images / "train/ant/9.bmp").symlink_to("nowhere"), "expected an image, received none"),
    ],
    ids=["no test", "other classes", "an empty class", "one class", "a link to nothing"],
)
def test_an_ill_formed_folder_is_refused(tmp_path: Path, form: Callable[[Path], object], message: str) -> None:
    form(images := make_images(tmp_path / "images"))
    with pytest.raises(ConfigError, match=re.escape(f"datasets.mine: {images}")) as fault:
        find_files(**settings(images))
    assert message in str(fault.value)


def test_an_ill_formed_folder_is_refused_in_the_dry_run(copied: tuple[Project, Path]) -> None:
    project, images = copied
    shutil.rmtree(images / "test/bee")
    line = project.read_refusal("own", overlay=settings(images))
    assert line.startswith(f"ConfigError: datasets.mine: {images}")
    process = project.run_snakemake("own", overlay=settings(images), check=False)
    assert process.returncode != 0
    assert f"datasets.mine: {images}" in process.stdout


def test_images_that_are_elsewhere_now_are_taken_to_be_the_same(copied: tuple[Project, Path]) -> None:
    """As on a cluster to which only results were copied."""
    project, images = copied
    shutil.rmtree(images)
    process = project.run_snakemake("own", "--dry-run", overlay=settings(images))
    assert "Nothing to be done" in process.stdout
    assert process.stdout.count(f"{images}: not on this machine, taken to be what") == 1
    table = project.folder / "results/demo/tables/own.md"
    table.unlink()
    assert project.plan_jobs("own", overlay=settings(images)) == {("table", "tables/own")}


@pytest.mark.parametrize("layout", ["train and test", "train and val", "class folders alone"])
def test_each_layout_of_a_folder_is_planned(tmp_path: Path, layout: str) -> None:
    images = make_images(tmp_path / "images")
    if layout == "train and val":
        (images / "test").rename(images / "val")
    if layout == "class folders alone":
        images = images / "train"
    assert find_files(results=str(tmp_path / "results"), **settings(images)) == {}


def test_a_new_preset_is_planned_as_it_was_written(
    fresh_project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images = make_images(tmp_path / "pets", count=12)
    monkeypatch.chdir(fresh_project.folder)
    assert main(["new", str(images)]) == 0
    command = capsys.readouterr().out.rpartition("run: nfpi run ")[2].split()
    assert command == ["all", "--config", "preset=pets.yaml"]
    runs = ["pets/mef/baseline/lambda=0/seed=0", *(f"pets/mef/fpi/lambda={n}/seed=0" for n in (424.4, 2122, 10610))]
    planned = fresh_project.plan_jobs(*command)
    assert {output for stage, output in planned if stage == "train-flow"} == set(runs)
    assert {("prepare-data", "pets/splits"), ("table", "tables/table2")} < planned


def test_a_process_that_runs_a_job_reads_no_images(tmp_path: Path) -> None:
    make_planning(**settings(tmp_path / "nowhere")).inputs(PrepareData)(SEEN)


def test_images_that_are_nowhere_are_named_where_they_are_to_be_read(fresh_project: Project, tmp_path: Path) -> None:
    line = fresh_project.read_refusal("own", overlay=settings(tmp_path / "nowhere"))
    assert line.startswith(f"ConfigError: datasets.mine: {tmp_path / 'nowhere'}")


def test_images_of_many_seeds_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, read = make_images(tmp_path / "images"), []
    file_digest = files.file_digest
    monkeypatch.setattr(files, "file_digest", lambda path: read.append(path) or file_digest(path))
    changes = {"results": str(tmp_path / "results"), **settings(images, split_seed="per_seed")}
    for _ in range(2):
        for seed in range(3):
            find_files(f"splits/seed={seed}", **changes)
    assert (len(read), len(set(read))) == (12, 12)
    edit(images)
    find_files("splits/seed=0", **changes)
    assert len(read) == 24


def test_a_run_that_needs_images_which_are_nowhere_is_not_left_out(
    copied: tuple[Project, Path],
) -> None:
    project, images = copied
    shutil.rmtree(images)
    shutil.rmtree(project.folder / "results/demo/mine/splits")
    more = settings(images) | {"seeds": [5]}
    line = project.read_refusal("own", overlay=more)
    assert line.startswith(f"ConfigError: datasets.mine: {images}")
    process = project.run_snakemake("own", overlay=more, check=False)
    assert process.returncode != 0
