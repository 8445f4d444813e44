"""The files that a data set is made from, and when they are the same still."""

import os
import shutil
from pathlib import Path

import pytest

from nfpi.data import DataError, SourceImages, register_source
from nfpi.data.sources.files import SourceFiles, list_source


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """Names of the files that are read."""
    names = []
    digest = SourceFiles._read_digest
    monkeypatch.setattr(SourceFiles, "_read_digest", lambda self, name: names.append(name) or digest(self, name))
    return names


def compute(folder: Path, downloads: Path) -> str:
    return list_source("imagefolder", folder).compute_digest(downloads)


def test_files_that_stay_are_read_once(image_folder, tmp_path, read):
    digests = {compute(image_folder, tmp_path) for _ in range(3)}
    assert (len(digests), len(read)) == (1, 30 + 12)


def test_touched_files_have_the_same_digest(image_folder, tmp_path, read):
    before = compute(image_folder, tmp_path)
    read.clear()
    (image_folder / "train/bee/3.png").touch()
    assert [compute(image_folder, tmp_path) for _ in range(2)] == [before] * 2
    assert len(read) == 42


def test_a_copy_has_the_same_digest(image_folder, tmp_path):
    assert compute(shutil.copytree(image_folder, tmp_path / "copy"), tmp_path) == compute(image_folder, tmp_path)


def test_equal_sizes_and_dates_hide_no_change(image_folder, tmp_path):
    before = compute(image_folder, tmp_path)
    file = image_folder / "train/bee/3.png"
    status, content = file.stat(), bytearray(file.read_bytes())
    content[-20] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert compute(image_folder, tmp_path) != before


@pytest.mark.parametrize("change", ["removed", "renamed"])
def test_names_are_part_of_the_digest(image_folder, tmp_path, change):
    before, file = compute(image_folder, tmp_path), image_folder / "train/bee/3.png"
    file.unlink() if change == "removed" else file.rename(file.with_name("99.png"))
    assert compute(image_folder, tmp_path) != before


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_damaged_memory_costs_reading_only(image_folder, tmp_path, read, keep):
    before = compute(image_folder, tmp_path)
    (memory,) = tmp_path.glob(".digest-*")
    memory.write_bytes(memory.read_bytes()[:keep])
    read.clear()
    assert compute(image_folder, tmp_path) == before
    assert len(read) == 42
    memory.unlink()
    memory.mkdir()  # nothing can be written there
    assert compute(image_folder, tmp_path) == before


def test_a_file_that_cannot_be_read_is_named(image_folder, tmp_path):
    source = list_source("imagefolder", image_folder)
    (image_folder / "train/bee/3.png").unlink()
    with pytest.raises(DataError, match=r"3\.png: expected a file that can be read"):
        source.compute_digest(tmp_path)


def test_fashion_mnist_is_its_four_files(tmp_path):
    names = [f"{split}-{kind}-ubyte.gz" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    for name in (*names, "other.txt"):
        (tmp_path / name).touch()
    found = list_source("fashion_mnist", tmp_path)
    assert found.names == names


@pytest.mark.usefixtures("restored_sources")
def test_all_files_of_a_source_of_the_users_own_count(tmp_path):
    register_source("mine")(lambda config, download_folder: SourceImages([], {}))
    for name in ("a.bin", "below/b.csv", ".hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = list_source("mine", tmp_path)
    assert (found.names, found.status[:, 0].tolist()) == (["a.bin", "below/b.csv"], [1, 1])


@pytest.mark.usefixtures("restored_sources")
def test_links_to_folders_of_a_source_of_the_users_own_are_followed(tmp_path):
    register_source("mine")(lambda config, download_folder: SourceImages([], {}))
    for place in ("set", "more"):
        (tmp_path / place).mkdir()
        (tmp_path / place / f"{place}.npy").touch()
    (tmp_path / "set/linked").symlink_to(tmp_path / "more")
    assert list_source("mine", tmp_path / "set").names == ["linked/more.npy", "set.npy"]
