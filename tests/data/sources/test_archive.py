import os
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest

from nfpi.config.datasets import DatasetConfig
from nfpi.data import DataError, load_source

FORMS = {"zip": "zip", "tar": "tar", "tar.gz": "gztar", "tar.xz": "xztar"}


def _archive(folder, place, form, base="."):
    return type(folder)(shutil.make_archive(str(place), FORMS[form], folder.parent, base))


def _load(archive, downloads):
    return load_source(DatasetConfig(source="imagefolder", folder=archive), downloads)


def _refused(archive, tmp_path, match):
    with pytest.raises(DataError, match=match) as caught:
        _load(archive, tmp_path / "downloads")
    assert str(archive) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not [path for path in (tmp_path / "downloads").rglob("*") if path.is_file()]


@pytest.mark.parametrize("form", FORMS)
def test_an_archive_holds_the_same_images_as_its_folder(image_folder, tmp_path, form):
    expected = _load(image_folder, tmp_path).splits
    archive = _archive(image_folder, tmp_path / "packed" / "animals", form, "files")
    found = _load(archive, tmp_path / "downloads").splits
    assert set(found) == {"train", "test"}
    for split, (images, labels) in expected.items():
        assert np.array_equal(found[split][0], images)
        assert np.array_equal(found[split][1], labels)


def test_a_folder_of_a_split_is_not_taken_for_an_outer_one(image_folder, tmp_path):
    shutil.rmtree(image_folder / "test")
    (image_folder / "train").rename(image_folder / "val")
    archive = _archive(image_folder, tmp_path / "animals", "zip", "files")
    with pytest.raises(DataError, match=r"files: .* received val$"):
        _load(archive, tmp_path / "downloads")


def test_metadata_of_macos_are_no_class(image_folder, tmp_path):
    archive = _archive(image_folder / "train", tmp_path / "Archive", "zip", "train")
    with zipfile.ZipFile(archive) as packed, zipfile.ZipFile(tmp_path / "macos.zip", "w") as zipped:
        for name in packed.namelist():
            if not name.endswith("/"):
                zipped.writestr(name.removeprefix("train/"), packed.read(name))
                zipped.writestr(f"__MACOSX/{name.removeprefix('train/')}", b"metadata")
    found = _load(tmp_path / "macos.zip", tmp_path / "downloads")
    assert set(found.classes) == {path.name for path in (image_folder / "train").iterdir()}


def test_an_archive_is_unpacked_once_until_it_changes(image_folder, tmp_path):
    archive = _archive(image_folder, tmp_path / "packed" / "animals", "zip", "files")
    before = _load(archive, tmp_path / "downloads")
    (first,) = (tmp_path / "downloads").glob("animals*")
    stamp = first.stat().st_ino
    _load(archive, tmp_path / "downloads")
    assert first.stat().st_ino == stamp
    (image_folder / "train" / "bee" / "3.png").unlink()
    archive.unlink()
    _archive(image_folder, tmp_path / "packed" / "animals", "zip", "files")
    os.utime(archive, (1, 1))
    assert len(_load(archive, tmp_path / "downloads").splits["train"][0]) == len(before.splits["train"][0]) - 1


@pytest.mark.parametrize("form", FORMS)
def test_a_cut_archive_is_refused_wherever_it_is_cut(image_folder, tmp_path, form):
    archive = _archive(image_folder, tmp_path / "packed" / "animals", form, "files")
    whole = archive.read_bytes()
    size = len(whole)
    if form == "tar":
        with tarfile.open(archive) as file:
            members = file.getmembers()
            boundaries = [member.offset for member in members[1:]] + [file.offset]
        cuts = [*boundaries[::5], boundaries[-1], *(cut + 700 for cut in boundaries[::7])]
    else:
        cuts = [size // 10, size // 2, size - 200]
    for cut in cuts:
        archive.write_bytes(whole[:cut])
        _refused(archive, tmp_path, "expected a whole zip or tar archive")


@pytest.mark.parametrize("name", ["../outside.png", "/tmp/nfpi-outside.png", "train/../../outside.png"])
@pytest.mark.parametrize("form", ["zip", "tar"])
def test_a_member_that_leads_out_of_the_folder_is_refused(tmp_path, write_archive, name, form):
    archive = tmp_path / f"climbing.{form}"
    write_archive(archive, name)
    _refused(archive, tmp_path, "expected members inside the folder, received")
    assert not (tmp_path / "outside.png").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    with tarfile.open(tmp_path / "special.tar", "w") as file:
        for name, form in (("train/ant/0.png", tarfile.REGTYPE), ("train/ant/1.png", kind)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = form, "train/ant/0.png"
            file.addfile(member)
    _refused(tmp_path / "special.tar", tmp_path, "a link or device, 'train/ant/1.png'")


def test_no_file_gets_rights_that_its_archive_names(image_folder, tmp_path):
    for path in image_folder.rglob("*.png"):
        path.chmod(0o6777)
    for form in ("zip", "tar"):
        _load(_archive(image_folder, tmp_path / "packed" / form, form, "files"), tmp_path / "downloads")
    unpacked = list((tmp_path / "downloads").rglob("*.png"))
    assert len(unpacked) == 2 * 42
    assert {path.stat().st_mode & 0o7022 for path in unpacked} == {0}


def test_a_link_of_a_zip_archive_becomes_a_file(tmp_path):
    linked = zipfile.ZipInfo("train/ant/0.png")
    linked.create_system, linked.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "linking.zip", "w") as zipped:
        zipped.writestr(linked, "/etc/passwd")
    with pytest.raises(DataError):
        _load(tmp_path / "linking.zip", tmp_path / "downloads")
    (file,) = (tmp_path / "downloads").rglob("0.png")
    assert not file.is_symlink()


def test_what_is_no_archive_is_refused(tmp_path):
    (tmp_path / "notes.zip").write_bytes(b"nothing of the kind" * 100)
    _refused(tmp_path / "notes.zip", tmp_path, "expected a whole zip or tar archive")


def test_processes_that_need_one_archive_unpack_it_once(image_folder, tmp_path):
    archive = _archive(image_folder, tmp_path / "packed" / "animals", "tar.xz", "files")
    code = (
        "import sys; from pathlib import Path; from nfpi.data.sources import files\n"
        "unpack = files._unpack\n"
        "def slowly(*arguments):\n"
        "    import time; print('unpacked', flush=True); time.sleep(1); unpack(*arguments)\n"
        "files._unpack = slowly\n"
        "print(files.find_image_root(Path(sys.argv[1]), Path(sys.argv[2])))\n"
    )
    command = [sys.executable, "-c", code, str(archive), str(tmp_path / "downloads")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [process.communicate(timeout=120)[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum(lines.count("unpacked") for lines in printed) == 1
    assert printed[0][-1] == printed[1][-1]
    assert [path.name for path in (tmp_path / "downloads").glob(".*") if path.suffix != ".contents"] == []
