import json
import re
from pathlib import Path

import numpy as np
import pytest

from nfpi.data import DataError, ImageSetWriter, read_image_set, write_image_set
from nfpi.data.writer import replace_folder

CLASSES = ["ant", "bee", "cow"]


def _refused(folder: Path, match: str, verify: bool = True) -> None:
    with pytest.raises(DataError, match=match) as caught:
        read_image_set(folder, verify)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def _edit_meta(folder: Path, **changes: object) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | changes))


def test_what_is_written_is_read(folder, arrays):
    image_set = read_image_set(folder)
    assert np.array_equal(image_set.images, arrays[0])
    assert np.array_equal(image_set.labels, arrays[1])
    assert (len(image_set), image_set.shape, image_set.num_classes) == (60, (3, 8, 8), 3)
    assert image_set.classes == CLASSES
    assert image_set.meta["counts"] == dict.fromkeys(CLASSES, 20)
    assert image_set.meta["extra"] == {"seed": 7}


def test_images_are_a_read_only_memory_map(image_set):
    assert isinstance(image_set.images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        image_set.images[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        image_set.labels[0] = 0


def test_grey_images_and_latents(tmp_path):
    write_image_set(tmp_path / "grey", np.zeros((2, 4, 5, 1), np.uint8), np.array([0, 1]), ["a", "b"])
    assert read_image_set(tmp_path / "grey").shape == (1, 4, 5)
    latents = np.random.default_rng(0).normal(size=(2, 4, 4, 4)).astype(np.float16)
    write_image_set(tmp_path / "latents", latents, np.array([0, 1]), ["a", "b"])
    assert np.array_equal(read_image_set(tmp_path / "latents").images, latents)


def test_pieces_in_any_order_make_the_same_files_as_the_whole(tmp_path, folder, arrays):
    images, labels = arrays
    order = np.random.default_rng(5).permutation(60)
    settings = {"name": "animals", "split": "train", "seed": 7}
    with ImageSetWriter(tmp_path / "pieces", 60, (8, 8, 3), CLASSES, **settings) as writer:
        for places in np.split(order, [7, 30]):
            writer.put(places, images[places], labels[places])
    for file in ("images.npy", "labels.npy", "meta.json"):
        assert (tmp_path / "pieces" / file).read_bytes() == (folder / file).read_bytes()


def test_a_crash_in_the_middle_leaves_nothing(tmp_path, arrays):
    def crash() -> None:
        with ImageSetWriter(tmp_path / "set", 60, (8, 8, 3), CLASSES) as writer:
            writer.put(np.arange(30), arrays[0][:30], arrays[1][:30])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        crash()
    assert list(tmp_path.iterdir()) == []


def test_a_crash_in_the_middle_leaves_the_old_set(folder, arrays):
    before = (folder / "images.npy").read_bytes()
    with pytest.raises(DataError, match="60"):  # noqa: SIM117
        with ImageSetWriter(folder, 61, (8, 8, 3), CLASSES) as writer:
            writer.put(np.arange(60), *arrays)
    assert (folder / "images.npy").read_bytes() == before
    assert list(folder.parent.iterdir()) == [folder]


def test_a_rename_that_fails_brings_the_old_set_back(folder, monkeypatch):
    rename = Path.rename

    def fail_on_partial(path: Path, target: Path) -> Path:
        if path.name.endswith(".partial"):
            raise OSError("no space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail_on_partial)
    with pytest.raises(OSError, match="no space"):
        write_image_set(folder, np.zeros((1, 2, 2, 1), np.uint8), np.array([0]), ["a"])
    assert len(read_image_set(folder)) == 60
    assert list(folder.parent.iterdir()) == [folder]


def test_an_old_set_is_replaced_as_a_whole(folder):
    opened = read_image_set(folder)
    first = opened.images[0].copy()
    write_image_set(folder, np.zeros((1, 2, 2, 1), np.uint8), np.array([0]), ["a"])
    assert len(read_image_set(folder)) == 1
    assert np.array_equal(opened.images[0], first)  # who has the old one open keeps it
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize("name", ["thesis.tex", ".env"])
def test_a_folder_with_other_things_in_it_is_not_replaced(folder, arrays, name):
    (folder / name).touch()
    with pytest.raises(DataError, match=rf"received '{re.escape(name)}'"):
        write_image_set(folder, *arrays, CLASSES)
    assert len(read_image_set(folder)) == 60


@pytest.mark.parametrize("name", [".DS_Store", ".nfs0001", ".data.manifest.json.0123456789abcdef.tmp"])
def test_what_the_system_or_a_killed_process_left_is_replaced(folder, arrays, name):
    (folder / name).touch()
    write_image_set(folder, *arrays, CLASSES)
    assert not (folder / name).exists()


def test_a_link_to_a_folder_is_not_replaced(folder, arrays, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(DataError, match="link: expected a folder or nothing, received a file or a link"):
        write_image_set(tmp_path / "link", arrays[0][:1], arrays[1][:1], CLASSES)
    assert len(read_image_set(folder)) == 60
    write_image_set(tmp_path / "link/new", *arrays, CLASSES)  # folders above it may be links
    assert (folder / "new/images.npy").is_file()


def test_a_file_is_not_replaced_by_a_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="received a file"), replace_folder(tmp_path / "file", []):
        pass


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"images": np.zeros((3, 8, 8, 3))}, "uint8 or float16 or float32, received float64"),
        ({"images": np.zeros((3, 8, 8), np.uint8)}, r"\(N, H, W, C\).* received \(3, 8, 8\)"),
        ({"images": np.zeros((2, 8, 8, 3), np.uint8)}, "3"),
        ({"images": np.full((3, 8, 8, 3), np.nan, np.float16)}, "NaN"),
        ({"labels": np.array([0, 1, 3])}, "labels from 0 to 2, received 0 to 3"),
        ({"labels": np.array([0.0, 1.0, 2.0])}, "integer labels, received float64"),
        ({"classes": ["ant", "bee", "ant"]}, "distinct class names"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path, changes, match):
    good = {"images": np.zeros((3, 8, 8, 3), np.uint8), "labels": np.array([0, 1, 2]), "classes": CLASSES}
    with pytest.raises(DataError, match=match):
        write_image_set(tmp_path / "set", **(good | changes))
    assert list(tmp_path.iterdir()) == []


def test_a_place_left_empty_is_refused(tmp_path, arrays):
    with pytest.raises(DataError, match="59"):  # noqa: SIM117
        with ImageSetWriter(tmp_path / "set", 60, (8, 8, 3), CLASSES) as writer:
            writer.put(np.r_[0:30, 30:59, 0], *arrays)


@pytest.mark.parametrize("file", ["images.npy", "labels.npy", "meta.json"])
def test_a_missing_file_is_refused(folder, file):
    (folder / file).unlink()
    _refused(folder, f"received no {file}")


@pytest.mark.parametrize("file", ["images.npy", "labels.npy"])
@pytest.mark.parametrize("keep", [0, 4, 100, 200])
def test_a_truncated_array_is_refused(folder, file, keep):
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[:keep])
    _refused(folder, f"{file}: expected a whole npy file", verify=False)


@pytest.mark.parametrize("file", ["images.npy", "labels.npy"])
def test_a_changed_byte_is_refused_unless_unverified(folder, file):
    content = bytearray((folder / file).read_bytes())
    content[-8] ^= 1  # the lowest byte of the last label, if it is the labels: 0 ↔ 1, 2 → 3 is out of range
    (folder / file).write_bytes(content)
    _refused(folder, "sha256|labels from 0 to 2")
    if file == "images.npy":
        assert len(read_image_set(folder, verify=False)) == 60


def test_pickled_arrays_are_refused(folder):
    np.save(folder / "labels.npy", np.array([print] * 60, dtype=object), allow_pickle=True)
    _refused(folder, "expected a whole npy file", verify=False)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda labels: labels + 1, "1 to 3"),
        (lambda labels: labels[:-1], r"\[59\]"),
        (lambda labels: labels.astype(np.int32), "int32"),
    ],
)
def test_other_labels_are_refused(folder, arrays, change, match):
    np.save(folder / "labels.npy", change(arrays[1]))
    _refused(folder, match)


def test_a_meta_that_says_otherwise_is_refused(folder):
    _edit_meta(folder, shape=[60, 8, 8, 1])
    _refused(folder, r"uint8 of \[60, 8, 8, 3\]")
    for text in ("{}", "[]", "{"):
        (folder / "meta.json").write_text(text)
        _refused(folder, "meta.json")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        *(({key: None}, key) for key in ("classes", "counts", "shape", "dtype", "sha256", "extra")),
        ({"classes": ["ant", "bee", 3]}, "classes.2"),
        ({"shape": [60, 8, 8]}, "shape"),
        ({"dtype": "float64"}, "dtype"),
        ({"sha256": {"images.npy": 3}}, "sha256"),
        ({"extra": {"flip": "no"}}, "extra.flip"),
    ],
)
def test_a_meta_of_other_values_is_refused(folder, changes, match):
    _edit_meta(folder, **changes)
    _refused(folder, match)


@pytest.mark.parametrize("text", ['{"name": NaN}', '{"name": 1e999}', '{"name": 1, "name": 2}', "[" * 100_000])
def test_json_that_python_takes_or_cannot_take_is_refused(folder, text):
    (folder / "meta.json").write_text(text)
    _refused(folder, "something else")


@pytest.mark.parametrize("file", ["images.npy", "labels.npy"])
def test_an_archive_of_arrays_is_no_array(folder, file):
    content = np.load(folder / file)
    with (folder / file).open("wb") as opened:
        np.savez(opened, content)
    _refused(folder, "expected a whole npy file")


@pytest.mark.parametrize("shape", ["(60, 8, 8, -3)", "(60, 8, 8, 10**9)", "(60, 8, 8, 'x')", "((((", "60", "(1e9,)"])
def test_a_damaged_header_of_an_array_is_refused(folder, shape):
    content = (folder / "images.npy").read_bytes()
    (folder / "images.npy").write_bytes(content.replace(b"(60, 8, 8, 3), }       ", f"{shape}, }}".ljust(23).encode()))
    assert (folder / "images.npy").read_bytes() != content
    _refused(folder, "images.npy", verify=False)


def test_folders_that_are_kept_stay_in_a_replaced_one(tmp_path):
    folder = tmp_path / "splits"
    for name in ("train", "seed=0", "seed=1"):
        (folder / name).mkdir(parents=True)
        (folder / name / "file").write_text(name)
    with replace_folder(folder, ["train"], kept="seed=*") as partial:
        (partial / "train").mkdir()
    assert {path.name: [file.name for file in path.iterdir()] for path in folder.iterdir()} == {
        "train": [],
        "seed=0": ["file"],
        "seed=1": ["file"],
    }
    with pytest.raises(DataError, match="received 'seed=0'"), replace_folder(folder, ["train"]):
        pass
