import io
import os
import shutil
import tarfile
import zipfile

import numpy as np
import pytest

from nfpi.config import DatasetConfig
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


def test_an_archive_is_unpacked_once_until_it_changes(image_folder, tmp_path):
    archive = _archive(image_folder, tmp_path / "packed" / "animals", "zip", "files")
    before = _load(archive, tmp_path / "downloads")
    (first,) = (tmp_path / "downloads").iterdir()
    stamp = first.stat().st_mtime_ns
    _load(archive, tmp_path / "downloads")
    assert [path.stat().st_mtime_ns for path in (tmp_path / "downloads").iterdir()] == [stamp]
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
        _refused(archive, tmp_path, "expected a whole zip or tar archive, received a damaged one")


@pytest.mark.parametrize("name", ["../outside.png", "/tmp/nfpi-outside.png", "train/../../outside.png"])
@pytest.mark.parametrize("form", ["zip", "tar"])
def test_a_member_that_leads_out_of_the_folder_is_refused(tmp_path, name, form):
    archive = tmp_path / f"climbing.{form}"
    if form == "zip":
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr(name, b"x")
    else:
        with tarfile.open(archive, "w") as file:
            member = tarfile.TarInfo(name)
            member.size = 1
            file.addfile(member, io.BytesIO(b"x"))
    if form == "tar" and name.startswith("/"):
        # the leading slash is taken off: the member lands inside
        with pytest.raises(DataError, match="expected a folder for each class"):
            _load(archive, tmp_path / "downloads")
        return
    _refused(archive, tmp_path, "expected members inside the folder, received")
    assert not (tmp_path / "outside.png").exists()


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    archive = tmp_path / "linking.tar"
    with tarfile.open(archive, "w") as file:
        member = tarfile.TarInfo("train")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc"
        file.addfile(member)
    _refused(archive, tmp_path, "expected members inside the folder")


def test_what_is_no_archive_is_refused(tmp_path):
    (tmp_path / "notes.zip").write_bytes(b"nothing of the kind" * 100)
    _refused(tmp_path / "notes.zip", tmp_path, "expected a whole zip or tar archive, received a damaged one")
