import subprocess
import sys

import numpy as np
import pytest

from nfpi.config.datasets import DatasetConfig
from nfpi.data import DataError, export_imagefolder, load_source, prepare_dataset, read_image_set, write_image_set

SPLITS = ("train", "validation", "test")


def _prepare(tmp_path, place="out", **settings):
    prepare_dataset("set", DatasetConfig(**settings), tmp_path / place, tmp_path / "downloads")
    return {split: read_image_set(tmp_path / place / split) for split in SPLITS}


def _marked_folder(tmp_path, train, test=(4, 4)):
    """An imagefolder whose images all differ: pixel values number them."""
    for split, counts, first in (("train", train, 0), ("test", test, 10_000)):
        labels = np.repeat(np.arange(len(counts)), counts)
        images = np.zeros((len(labels), 2, 2, 1), np.uint8)
        number = first + np.arange(len(labels))
        images[:, 0, 0, 0], images[:, 0, 1, 0] = number // 256, number % 256
        write_image_set(tmp_path / "sets" / split, images, labels, [f"c{k}" for k in range(len(counts))])
        export_imagefolder(read_image_set(tmp_path / "sets" / split), tmp_path / "files" / split)
    return tmp_path / "files"


def _numbers(image_set):
    return image_set.images[:, 0, 0, 0].astype(int) * 256 + image_set.images[:, 0, 1, 0]


def test_splits_cut_the_source_into_disjoint_parts(tmp_path):
    folder = _marked_folder(tmp_path, (100, 60))
    sets = _prepare(tmp_path, source="imagefolder", folder=folder, validation_fraction=0.1)
    train, validation, test = (set(_numbers(sets[split])) for split in SPLITS)
    assert train.isdisjoint(validation)
    assert train | validation == set(range(160))
    assert test == set(range(10_000, 10_008))


@pytest.mark.parametrize(
    ("settings", "received"), [({"classes": 3}, "2"), ({"shape": (2, 2, 3)}, r"\(2, 2, 1\)")], ids=["classes", "shape"]
)
def test_expected_classes_and_shapes_are_compared_with_the_images(tmp_path, settings, received):
    (key,) = settings
    folder = _marked_folder(tmp_path, (40, 40))
    _prepare(tmp_path, source="imagefolder", folder=folder, classes=2, shape=(2, 2, 1))
    with pytest.raises(DataError, match=f"^datasets.set.{key}: expected .*, received {received}"):
        _prepare(tmp_path, "other", source="imagefolder", folder=folder, **settings)
    assert not (tmp_path / "other").exists()


def test_limits_choose_at_random_among_a_class_and_labels_stay_with_their_images(tmp_path):
    folder = _marked_folder(tmp_path, (200, 200))
    sets = _prepare(tmp_path, source="imagefolder", folder=folder, train_per_class=50)
    assert 60 < _numbers(sets["train"])[:50].mean() < 140  # the first 50 would have 25
    for split in ("train", "validation"):
        assert np.array_equal(sets[split].labels, _numbers(sets[split]) >= 200)


def test_every_class_gives_its_share_within_one_image(tmp_path):
    folder = _marked_folder(tmp_path, (101, 57, 33), (4, 4, 4))
    sets = _prepare(tmp_path, source="imagefolder", folder=folder, validation_fraction=0.15)
    counts = np.bincount(sets["validation"].labels)
    assert np.all(np.abs(counts - 0.15 * np.array([101, 57, 33])) < 1)


def test_digits_hold_out_a_test_set_too(tmp_path):
    sets = _prepare(tmp_path, source="digits", test_fraction=0.2, validation_fraction=0.1)
    whole = np.bincount(load_source(DatasetConfig(), tmp_path).splits["train"][1])
    assert sum(len(s) for s in sets.values()) == 1797
    assert np.all(np.abs(np.bincount(sets["test"].labels) - 0.2 * whole) < 1)
    assert np.all(np.abs(np.bincount(sets["validation"].labels) - 0.1 * 0.8 * whole) < 1.1)


def test_a_seed_determines_everything_on_disk(tmp_path):
    for place, seed in (("a", 3), ("b", 3), ("c", 4)):
        _prepare(tmp_path, place, source="digits", split_seed=seed, train_per_class=50, test_per_class=10)
    for split in SPLITS:
        for file in ("images.npy", "labels.npy", "meta.json"):
            a, b, c = ((tmp_path / place / split / file).read_bytes() for place in "abc")
            assert a == b
            if file != "labels.npy":
                assert a != c


def test_limits_hold_a_class_and_do_not_touch_validation(tmp_path):
    free = _prepare(tmp_path, "free", source="digits")
    sets = _prepare(tmp_path, "limited", source="digits", train_per_class=50, test_per_class=7)
    assert np.bincount(sets["train"].labels).tolist() == [50] * 10
    assert np.bincount(sets["test"].labels).tolist() == [7] * 10
    assert np.array_equal(sets["validation"].images, free["validation"].images)


def test_an_own_validation_split_is_kept_and_not_for_a_refit(tmp_path):
    folder = _marked_folder(tmp_path, (30, 30))
    (folder / "test").rename(folder / "val")
    export_imagefolder(read_image_set(tmp_path / "sets" / "train"), folder / "test")
    sets = _prepare(tmp_path, source="imagefolder", folder=folder)
    assert [len(sets[split]) for split in SPLITS] == [60, 8, 60]
    with pytest.raises(DataError, match="refit:"):
        _prepare(tmp_path, source="imagefolder", folder=folder, refit=True)


def test_refit_trains_on_the_validation_images_too(tmp_path):
    folder = _marked_folder(tmp_path, (100, 60))
    sets = _prepare(tmp_path, source="imagefolder", folder=folder, validation_fraction=0.1, refit=True)
    assert set(_numbers(sets["train"])) == set(range(160))
    assert (len(sets["validation"]), sets["validation"].shape) == (0, sets["train"].shape)
    assert sets["train"].meta["extra"]["held_out"] == {}
    limited = _prepare(tmp_path, "limited", source="imagefolder", folder=folder, refit=True, train_per_class=20)
    assert [len(limited[split]) for split in SPLITS] == [40, 0, 8]


def test_refit_changes_no_test_image(tmp_path):
    """Digits have no test split: it is drawn before the validation split is, or is not."""
    sets = _prepare(tmp_path, "held-out", source="digits")
    refit = _prepare(tmp_path, "refit", source="digits", refit=True)
    assert np.array_equal(refit["test"].images, sets["test"].images)
    assert len(refit["train"]) == len(sets["train"]) + len(sets["validation"])


def test_meta_tells_name_split_and_seed(tmp_path):
    """And what share of the images is held out, and whether mirroring is allowed: training reads it there."""
    meta = _prepare(tmp_path, source="digits", split_seed=5, flip=False)["validation"].meta
    assert (meta["name"], meta["split"], meta["extra"]["flip"]) == ("set", "validation", False)
    assert meta["extra"]["held_out"] == {"test": 0.2, "validation": 0.05}


@pytest.mark.parametrize(
    ("train", "settings", "match"),
    [
        ((30, 2), {"validation_fraction": 0.1}, "at least 1 validation images of class 'c1', received 0"),
        ((30, 30), {"train_per_class": 1}, "at least 2 train images of class 'c0', received 1"),
        ((30, 1), {"validation_fraction": 0.5}, "validation_fraction: .*1 member"),
        ((3, 4), {"validation_fraction": 0.1}, "validation_fraction: .*2"),
    ],
)
def test_too_few_images_are_refused_in_one_line(tmp_path, train, settings, match):
    folder = _marked_folder(tmp_path, train)
    with pytest.raises(DataError, match=match) as caught:
        _prepare(tmp_path, source="imagefolder", folder=folder, **settings)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_all_three_splits_or_none(tmp_path, monkeypatch):
    def fail_on_test(folder, *args, split, **settings):
        if split == "test":
            raise OSError("disk full")
        write_image_set(folder, *args, split=split, **settings)

    monkeypatch.setattr("nfpi.data.prepare.write_image_set", fail_on_test)
    with pytest.raises(OSError, match="disk full"):
        _prepare(tmp_path, source="digits")
    assert list(tmp_path.iterdir()) == []


def test_pixels_are_prepared_without_torch(tmp_path):
    """Importing it would double the time that this stage takes."""
    code = f"""
import sys
from pathlib import Path
from nfpi.config.datasets import DatasetConfig
from nfpi.data.prepare import prepare_dataset
prepare_dataset("digits", DatasetConfig(), Path({str(tmp_path / "sets")!r}), Path({str(tmp_path)!r}))
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert read_image_set(tmp_path / "sets" / "train").shape == (1, 8, 8)
