"""Records of the files that a data set was made from, and when they are the same still."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from nfpi.config.datasets import DatasetConfig
from nfpi.data import DataError, SourceImages, prepare_dataset, register_source
from nfpi.data.sources.files import SourceFiles, compute_token, list_source, read_record
from nfpi.runtime.files import file_digest


def _config(folder: Path, **settings) -> DatasetConfig:
    return DatasetConfig(**{"source": "imagefolder", "folder": folder, "validation_fraction": 0.2} | settings)


@pytest.fixture
def splits(image_folder, tmp_path) -> Path:
    prepare_dataset("set", _config(image_folder), tmp_path / "splits", tmp_path)
    return tmp_path / "splits"


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """Names of the files that are read to be compared."""
    names = []
    digest = SourceFiles._compute_digest
    monkeypatch.setattr(SourceFiles, "_compute_digest", lambda self, i: names.append(self.names[i]) or digest(self, i))
    return names


def test_a_record_names_each_file_with_its_size_and_digest(image_folder, splits):
    record = read_record(splits)
    names = record.names
    assert len(names) == len(record.digests) == 30 + 12
    for name, (size, _), digest in zip(names, record.status, record.digests, strict=True):
        file = image_folder.parent / name.replace("folder", image_folder.name, 1)
        assert (file.stat().st_size, file_digest(file)) == (size, digest.tobytes().hex())


def test_files_that_stay_are_not_read(image_folder, splits, read):
    assert compute_token(list_source(_config(image_folder)), splits) == read_record(splits).token
    assert read == []


def test_a_touched_file_is_read_once(image_folder, splits, read):
    (image_folder / "train/bee/3.png").touch()
    for _ in range(2):
        assert compute_token(list_source(_config(image_folder)), splits) == read_record(splits).token
    assert read == ["folder/train/bee/3.png"]


def test_a_copy_is_read_once(image_folder, splits, tmp_path, read):
    copy = shutil.copytree(image_folder, tmp_path / "copy")
    for _ in range(2):
        for folder in (copy, image_folder):
            assert compute_token(list_source(_config(folder)), splits) == read_record(splits).token
    assert len(read) == 42


def test_equal_sizes_and_dates_hide_no_change(image_folder, splits):
    file = image_folder / "train/bee/3.png"
    status, content = file.stat(), bytearray(file.read_bytes())
    content[-20] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    files = list_source(_config(image_folder))
    assert compute_token(files, splits) == files.token != read_record(splits).token


def test_the_next_record_has_the_token_that_announced_it(image_folder, splits, tmp_path):
    (image_folder / "train/bee/3.png").unlink()
    announced = compute_token(list_source(_config(image_folder)), splits)
    assert announced != read_record(splits).token
    prepare_dataset("set", _config(image_folder), splits, tmp_path)
    assert read_record(splits).token == announced == compute_token(list_source(_config(image_folder)), splits)


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_damaged_record_is_named(image_folder, splits, keep):
    file = splits / "sources.npz"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"sources\.npz:.*a damaged one"):
        compute_token(list_source(_config(image_folder)), splits)


def test_a_file_that_changes_while_the_data_set_is_read_is_an_error(image_folder, tmp_path, monkeypatch):
    def load(config, download_folder):
        (image_folder / "train/bee/3.png").touch()
        return SourceImages(["a"], {"train": (np.zeros((40, 2, 2, 1), np.uint8), np.zeros(40, np.int64))})

    monkeypatch.setattr("nfpi.data.prepare.load_source", load)
    with pytest.raises(DataError, match=r"3\.png:.*one that has changed"):
        prepare_dataset("set", _config(image_folder), tmp_path / "splits", tmp_path)
    assert not (tmp_path / "splits").exists()


def test_what_is_downloaded_or_published_has_no_files_of_its_own(tmp_path):
    assert list_source(DatasetConfig(source="digits")).names == []
    assert list_source(DatasetConfig(source="cifar10", folder=tmp_path)).names == []


def test_fashion_mnist_is_its_four_files(tmp_path):
    names = [f"{split}-{kind}-ubyte.gz" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    for name in (*names, "other.txt"):
        (tmp_path / name).touch()
    found = list_source(DatasetConfig(source="fashion_mnist", folder=tmp_path))
    assert found.names == [f"folder/{name}" for name in names]


@pytest.mark.usefixtures("restored_sources")
def test_all_files_of_a_source_of_the_users_own_count(tmp_path):
    register_source("mine")(lambda config, download_folder: SourceImages([], {}))
    for name in ("a.bin", "below/b.csv", ".hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = list_source(DatasetConfig(source="mine", folder=tmp_path))
    assert (found.names, found.status[:, 0].tolist()) == (["folder/a.bin", "folder/below/b.csv"], [1, 1])


@pytest.mark.usefixtures("restored_sources")
def test_links_of_a_source_of_the_users_own_end_where_they_began(tmp_path, caplog):
    register_source("mine")(lambda config, download_folder: SourceImages([], {}))
    (tmp_path / "set/deep").mkdir(parents=True)
    (tmp_path / "set/deep/1.npy").write_bytes(b"1")
    (tmp_path / "more").mkdir()
    (tmp_path / "more/2.npy").write_bytes(b"22")
    (tmp_path / "set/linked").symlink_to(tmp_path / "more")
    for name in ("up", "top"):  # each path through both would be listed, of which there are too many to end
        (tmp_path / "set/deep" / name).symlink_to(tmp_path / "set")
    found = list_source(DatasetConfig(source="mine", folder=tmp_path / "set"))
    assert found.names == ["folder/deep/1.npy", "folder/linked/2.npy"]
    assert [message.split(":")[0] for message in sorted(caplog.messages)] == [
        str(tmp_path / "set/deep" / name) for name in ("top", "up")
    ]
