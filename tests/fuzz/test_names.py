"""Names in files from others: none leads out of its folder, or through a link to something that lies outside.

`NFPI_FUZZ_INPUTS` and `NFPI_FUZZ_SEED` set the number of names per test and the seed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import stat
import tarfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nfpi.data.sources.files import find_image_root
from nfpi.data.sources.imagefolder import export_imagefolder
from nfpi.data.store import ImageSet
from nfpi.page.pictures import embed_file
from nfpi.results.recorded.calls import read_progress
from nfpi.runtime.manifests import MANIFEST_FORMAT, ManifestError, compute_digest, find_faults, remove_temporary

from .conftest import SEED, at_most, count_inputs

_SECONDS = 20
"""that all names of a small test may take for one step"""
_SECRET = "what lies outside"
_ODD = (
    "~",
    "$HOME",
    "-rf",
    "a\nb",
    "\x1b[2J",
    "C:\\x",
    "..\\..",
    "%2e%2e",
    "\0",
    "\u202e",
    "é",
    "x" * 300,
    " ",
    "*",
    "...",
)
NUMBERS = [None, pytest.param(2000, marks=pytest.mark.long)]


def names(number: int | None, folder: Path, target: Path) -> Iterator[str]:
    """Random names in `folder`, many of which a careless reader would follow to `target`, which lies outside of it.

    Every other one is a path to the target, through a link or by climbing, with detours.
    """
    direct = os.path.relpath(target, folder)
    paths = [direct, str(target), f"/{target}", f"out/{target.name}", f"inner/out/{target.name}", f"up/{direct}"]
    paths += [f"inner/back/{direct}", "link", f"inner/../{direct}", f"up/{folder.name}/out/{target.name}"]
    parts = ("..", ".", "", "inner", "out", "up", "loop", "pipe", "link", "inner/back", target.name, *_ODD)
    for index in range(count_inputs(200) if number is None else number):
        rng = random.Random(f"{SEED} {index}")
        if index % 2:
            detours = "".join(rng.choice(("./", "inner/../", "", "inner/back/")) for _ in range(rng.randrange(4)))
            path = rng.choice(paths)
            yield path if path.startswith("/") else detours + path
        else:
            yield "/".join(rng.choice(parts) for _ in range(rng.randrange(1, 6)))


def furnish(folder: Path, target: Path, suffix: str = "") -> None:
    """Make a folder with links, one to the target and others to folders, a link to itself, a pipe and a file."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "inner").mkdir(parents=True)
    (folder / f"inner/own{suffix}").write_text("own")
    os.mkfifo(folder / f"pipe{suffix}")
    for link, to in {
        "out": target.parent,
        "inner/out": target.parent,
        "up": "..",
        "inner/back": "..",
        f"loop{suffix}": f"loop{suffix}",
        f"link{suffix}": target.with_name(target.name + suffix),
    }.items():
        (folder / link).symlink_to(to)


def leads_to(folder: Path, name: str, target: Path) -> bool:
    """Whether a careless reader would be led to the target."""
    return "\0" not in name and len(name) < 4000 and os.path.realpath(folder / name) == str(target)


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A folder that no name may reach; it stays as it is."""
    folder = (tmp_path / "outside").resolve()
    (folder / "lambda=1/seed=0").mkdir(parents=True)
    (folder / "secret").write_text(_SECRET)
    Image.fromarray(np.full((3, 3), 77, np.uint8)).save(folder / "secret.png")
    (folder / "secret.csv").write_text(f"row,{_SECRET}\n1,2\n")
    (folder / "lambda=1/seed=0/train_flow.log.json").write_text(json.dumps({"state": "failed", "error": _SECRET}))
    before = snapshot(folder)
    yield folder
    assert snapshot(folder) == before


def snapshot(folder: Path) -> dict[str, bytes]:
    """Content of all files."""
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def write_manifest(path: Path, name: str, content: str) -> None:
    record = {"format": MANIFEST_FORMAT, "stage": "make-it", "product": "data", "content": "", "key": ""}
    record |= {"files": {name: hashlib.sha256(content.encode()).hexdigest()}, "temporary": [name]}
    record |= {"inputs": [], "settings": {}}
    path.write_text(json.dumps(record | {"sha256": compute_digest(record)}))


@pytest.mark.parametrize("number", NUMBERS)
def test_no_name_in_a_manifest_is_followed(tmp_path, outside, number):
    folder, target, careless = tmp_path / "results", outside / "secret", 0
    path = folder / "data.manifest.json"
    for name in names(number, folder, target):
        furnish(folder, target)
        write_manifest(path, name, _SECRET)
        careless += leads_to(folder, name, target)
        with at_most(_SECONDS):
            _, faults = find_faults(path)
            with suppress(ManifestError, OSError):
                remove_temporary(path)
        # a missing temporary file is none; any other one that is found differs from the digest, unless it is followed
        assert faults or not os.path.lexists(folder / name), name
        assert target.exists(), name
    assert careless > 50


@pytest.mark.parametrize("number", NUMBERS)
def test_no_name_of_a_picture_of_a_page_is_followed(tmp_path, outside, number):
    folder, target, careless = tmp_path / "figures", outside / "secret", 0
    furnish(folder, target, ".png")
    for name in names(number, folder, target):
        careless += leads_to(folder, f"{name}.png", target.with_suffix(".png"))
        with at_most(_SECONDS), suppress(ValueError, OSError):
            assert not embed_file(folder, f"{name}.png", ""), name
    assert careless > 50


@pytest.mark.parametrize("number", NUMBERS)
def test_no_name_of_a_planned_run_climbs_out_of_the_results(tmp_path, outside, number):
    root, careless = tmp_path / "results", 0
    target = outside / "lambda=1/seed=0"
    (root / "logs/a/b").mkdir(parents=True)
    for index, name in enumerate(names(number, root / "logs", target)):
        rng = random.Random(f"{SEED} {index}")
        climbing = "/".join(rng.choice(("..", "..", outside.name)) for _ in range(3)) + "/lambda=1/seed=0"
        (root / "planned.json").write_text(json.dumps({"runs": [name, climbing]}))
        careless += leads_to(root / "logs", climbing, target)
        with at_most(_SECONDS):
            assert not [one for one in read_progress(root) if _SECRET in one.detail], (name, climbing)
    assert careless > 5


@pytest.mark.parametrize("number", NUMBERS)
def test_no_name_in_an_archive_is_followed(tmp_path, outside, number):
    kinds = (tarfile.REGTYPE, tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE)
    archive, downloads, unpacked = tmp_path / "a.tar", tmp_path / "downloads", 0
    place, target = downloads / "a-0123456789ab", outside / "secret"
    hostile = list(names(number, place, target))
    for index, name in enumerate(hostile):
        rng = random.Random(f"{SEED} {index}")
        chosen = [("train/ant/0.png", tarfile.REGTYPE), (name, rng.choice(kinds)), (rng.choice(hostile), kinds[0])]
        write_tar(archive, chosen[: rng.randrange(2, 4)], lambda rng=rng: rng.choice(hostile))
        with at_most(_SECONDS), suppress(ValueError):
            find_image_root(archive, downloads)
            unpacked += 1
        for path in downloads.rglob("*"):
            assert stat.S_IFMT(path.lstat().st_mode) in (stat.S_IFREG, stat.S_IFDIR), (name, path)
        shutil.rmtree(downloads, ignore_errors=True)
    assert 0 < unpacked < len(hostile) / 2


def write_tar(archive: Path, members: list[tuple[str, bytes]], choose: Callable[[], str]) -> None:
    """Write a tar archive; links lead to names that `choose` returns."""
    with tarfile.open(archive, "w") as file:
        for name, kind in members:
            member = tarfile.TarInfo(name.replace("\0", ""))
            member.type, member.size = kind, 3 if kind == tarfile.REGTYPE else 0
            if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                member.linkname = choose().replace("\0", "")
            file.addfile(member, io.BytesIO(b"out") if member.size else None)


@pytest.mark.parametrize("number", NUMBERS)
def test_no_name_of_a_class_is_a_path(tmp_path, outside, number):
    """Classes of a model's config.json and of meta.json, whose images are written into folders of these names."""
    folder, written = tmp_path / "exported", 0
    for name in names(number, folder, outside / "secret"):
        furnish(folder, outside / "secret")
        images = ImageSet(np.zeros((2, 4, 4, 1), np.uint8), np.arange(2), {"classes": [name, "other"]})
        with at_most(_SECONDS), suppress(ValueError, OSError):
            export_imagefolder(images, folder / "new")
            written += 1
        assert {path.parent.parent for path in folder.rglob("*.png")} <= {folder / "new"}, name
    assert written > 50
