import os
import shutil

import numpy as np
import pytest
from PIL import Image

from nfpi.config.datasets import DatasetConfig
from nfpi.data import (
    DataError,
    export_imagefolder,
    load_source,
    prepare_dataset,
    read_image_folder,
    read_image_set,
    write_image_set,
)
from nfpi.data.image_files import SUFFIXES, read_image
from nfpi.data.sources.imagefolder import list_image_folder
from nfpi.data.store import read_file_names

CLASSES = ["ant", "bee", "cow"]


def _load(folder, **settings):
    return load_source(DatasetConfig(source="imagefolder", folder=folder, **settings), folder)


def _refused(folder, match, **settings):
    with pytest.raises(DataError, match=match) as caught:
        _load(folder, **settings)
    assert "\n" not in str(caught.value)


def test_export_and_import_give_the_same_images(image_set, tmp_path):
    export_imagefolder(image_set, tmp_path / "png")
    images, labels, classes = read_image_folder(tmp_path / "png")
    order = np.argsort(image_set.labels, kind="stable")
    assert np.array_equal(images, image_set.images[order])
    assert np.array_equal(labels, image_set.labels[order])
    assert classes == image_set.classes
    export_imagefolder(image_set, tmp_path / "png")  # replaces


def test_export_of_grey_images_and_odd_class_names(tmp_path):
    images = np.arange(32, dtype=np.uint8).reshape(2, 4, 4, 1)
    write_image_set(tmp_path / "set", images, np.array([0, 1]), ["T-shirt/top", ".."])
    export_imagefolder(read_image_set(tmp_path / "set"), tmp_path / "png")
    assert sorted(p.name for p in (tmp_path / "png").iterdir()) == ["-.", "T-shirt-top"]
    read, _, classes = read_image_folder(tmp_path / "png")
    assert classes == ["-.", "T-shirt-top"]
    assert np.array_equal(read, images[::-1])


def test_export_refuses_latents(tmp_path):
    write_image_set(tmp_path / "set", np.zeros((1, 4, 4, 4), np.float16), np.array([0]), ["a"])
    with pytest.raises(DataError, match="received float16 with 4"):
        export_imagefolder(read_image_set(tmp_path / "set"), tmp_path / "png")


def test_splits_and_classes(image_folder):
    source = _load(image_folder)
    assert source.classes == CLASSES
    assert set(source.splits) == {"train", "test"}
    images, labels = source.splits["train"]
    assert (images.shape, images.dtype) == ((30, 6, 6, 3), np.uint8)
    assert (np.bincount(labels).tolist(), labels.dtype) == ([10, 10, 10], np.int64)
    with Image.open(image_folder / "train" / "bee" / "0.png") as file:
        assert np.array_equal(images[10], np.asarray(file))


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        ({"train", "test"}, {"train": "train", "test": "test"}),
        ({"train", "val"}, {"train": "train", "test": "val"}),
        ({"train", "validation"}, {"train": "train", "test": "validation"}),
        ({"train", "val", "test"}, {"train": "train", "validation": "val", "test": "test"}),
        ({"train", "validation", "test"}, {"train": "train", "validation": "validation", "test": "test"}),
        (set(), {"train": ""}),
    ],
)
def test_the_splits_that_a_folder_may_have(tmp_path, folders, splits):
    for name in folders or {""}:
        export_imagefolder_like(tmp_path / "mine" / name)
    found = list_image_folder(tmp_path / "mine").names
    assert {
        split: {name.rpartition("/")[0].rpartition("/")[0] for name in names} for split, names in found.items()
    } == {split: {folder} for split, folder in splits.items()}
    assert all((tmp_path / "mine" / name).is_file() for names in found.values() for name in names)


def test_class_folders_alone_are_split(image_folder, tmp_path):
    folder = image_folder / "train"
    config = DatasetConfig(source="imagefolder", folder=folder, test_fraction=0.2, validation_fraction=0.25)
    prepare_dataset("mine", config, tmp_path / "splits", tmp_path)
    sets = [read_image_set(tmp_path / "splits" / split) for split in ("train", "validation", "test")]
    assert [np.bincount(image_set.labels).tolist() for image_set in sets] == [[6] * 3, [2] * 3, [2] * 3]
    assert all(image_set.meta["extra"]["held_out"] == {"test": 0.2, "validation": 0.25} for image_set in sets)


@pytest.mark.parametrize("only_classes", [None, ["cow", "bee"]])
def test_splits_keep_the_names_of_their_files(image_folder, tmp_path, only_classes):
    folder = image_folder / "train"
    fractions = {"test_fraction": 0.2, "validation_fraction": 0.25}
    config = DatasetConfig(source="imagefolder", folder=folder, only_classes=only_classes, **fractions)
    prepare_dataset("mine", config, tmp_path / "splits", tmp_path)
    for split in ("train", "validation", "test"):
        image_set = read_image_set(tmp_path / "splits" / split)
        names = read_file_names(tmp_path / "splits" / split, image_set)
        for name, image, label in zip(names, image_set.images, image_set.labels, strict=True):
            assert name.startswith(f"{image_set.classes[label]}/")
            assert np.array_equal(read_image(folder / name)[0], image)


@pytest.mark.parametrize(
    "folders", [["train"], ["train", "valid"], ["test", "val"], ["train", "test", "validation", "val"]]
)
def test_other_sets_of_splits_are_refused(tmp_path, folders):
    for name in folders:
        export_imagefolder_like(tmp_path / name)
    _refused(tmp_path, f"received {', '.join(folders)}$")


def export_imagefolder_like(folder):
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        Image.new("RGB", (6, 6)).save(folder / name / "0.png")


def test_images_stay_grey_only_if_all_are(image_folder):
    for path in image_folder.rglob("*.png"):
        with Image.open(path) as file:
            grey = file.convert("L")
        grey.save(path)
    images = _load(image_folder).splits["train"][0]
    assert images.shape == (30, 6, 6, 1)
    Image.new("RGB", (6, 6), (1, 2, 3)).save(image_folder / "test" / "cow" / "2.png")
    source = _load(image_folder)
    assert np.array_equal(source.splits["train"][0], np.repeat(images, 3, axis=3))
    assert source.splits["test"][0][-2, 0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize(("mode", "channels"), [("1", 1), ("LA", 1), ("P", 3), ("RGBA", 3)])
def test_files_of_one_bit_and_grey_ones_with_alpha_are_grey(tmp_path, mode, channels):
    greys = np.random.default_rng(0).integers(0, 256, (2, 6, 5), np.uint8)
    for name, pixels in zip("ab", greys, strict=True):
        (tmp_path / name).mkdir()
        grey = Image.fromarray(pixels)
        image = grey.convert(mode)
        if mode.endswith("A"):
            image.putalpha(Image.fromarray(255 - pixels))
        image.save(tmp_path / name / "1.png")
        assert read_image(tmp_path / name / "1.png")[1] == mode
    images, _, _ = read_image_folder(tmp_path)
    assert images.shape == (2, 6, 5, channels)
    if mode == "1":
        assert set(np.unique(images)) == {0, 255}
    else:
        assert np.array_equal(images, np.repeat(greys[..., None], channels, axis=3))
    Image.fromarray(greys[0]).save(tmp_path / "a" / "2.png")
    assert read_image_folder(tmp_path)[0].shape == (3, 6, 5, channels)


def test_images_of_other_sizes_need_image_size(image_folder):
    odd = image_folder / "test" / "bee" / "2.png"
    Image.new("RGB", (9, 7), (10, 20, 30)).save(odd)
    _refused(image_folder, f"{odd}:.*9×7")
    images = _load(image_folder, image_size=4).splits["test"][0]
    assert images.shape == (12, 4, 4, 3)
    assert np.all(images[6] == (10, 20, 30))


def test_resizing_crops_the_centre(image_folder):
    wide = np.zeros((4, 12, 3), np.uint8)
    wide[:, 4:8] = 255
    Image.fromarray(wide).save(image_folder / "test" / "ant" / "0.png")
    assert np.all(_load(image_folder, image_size=4).splits["test"][0][0] == 255)


@pytest.mark.parametrize("keep", [0, 10, 500])
def test_a_damaged_image_is_named(image_folder, keep):
    path = image_folder / "train" / "bee" / "damaged.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(noise).resize((6, 6)).save(path, quality=95)
    content = path.read_bytes()
    path.write_bytes(content[: min(keep, len(content) - 60)])
    _refused(image_folder, f"{path}:.*one that cannot be read")


def test_grey_values_of_sixteen_bits_are_refused(image_folder):
    path = image_folder / "train" / "bee" / "5.pgm"
    path.write_bytes(b"P5 6 6 1023\n" + bytes(6 * 6 * 2))
    _refused(image_folder, f"{path}: expected an image of 8 bits per channel, received")


@pytest.mark.parametrize("name", ["0.jpg", "0.tif"])
def test_an_image_is_turned_upright(image_folder, name):
    path = image_folder / "train" / "ant" / name
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    wide = np.zeros((16, 32, 3), np.uint8)
    wide[:, :16] = 255  # left, which is above when it is upright
    Image.fromarray(wide).save(path, exif=exif, quality=100)
    image, _ = read_image(path)
    assert image.shape[:2] == (32, 16)
    assert image[:16].min() > 250
    assert image[16:].max() < 5


def test_no_format_but_those_of_image_files_is_tried(image_folder):
    """For an EPS file, Pillow would start Ghostscript."""
    path = image_folder / "train" / "bee" / "5.png"
    Image.new("RGB", (6, 6)).save(path, "EPS")
    _refused(image_folder, f"{path}:.*one that cannot be read.*cannot identify")
    for name in ("5.gif", "5.ico"):
        Image.new("RGB", (6, 6)).save(path.with_name(name))
        path.with_name(name).replace(path)
        _refused(image_folder, "cannot identify")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_suffix_has_its_format(image_folder, suffix):
    path = image_folder / "train" / "bee" / f"9{suffix}"
    Image.new("L", (6, 6), 77).save(path)
    assert abs(int(read_image(path)[0].mean()) - 77) <= 1


def test_classes_must_be_the_same_in_all_splits(image_folder):
    (image_folder / "test" / "cow").rename(image_folder / "test" / "calf")
    _refused(image_folder, "test:.*a difference in 'calf'")


def test_a_folder_without_classes_or_a_class_without_images_is_named(image_folder):
    _refused(None, "folder: ")
    _refused(image_folder / "nowhere", "nowhere: ")
    _refused(image_folder / "train/ant", "train/ant: ")
    _refused(image_folder.parent, "'files'")
    (image_folder.parent / "more/below").mkdir(parents=True)
    _refused(image_folder.parent, "files: ")
    (image_folder.parent / "more/below").rename(image_folder / "train/ant/below")
    _refused(image_folder.parent / "more", "more: ")


def test_a_class_whose_name_is_not_utf8_is_named(image_folder):
    (image_folder / "train" / os.fsdecode(b"caf\xe9")).mkdir()
    _refused(image_folder, r"train: expected names of class folders in UTF-8, received b'caf\\xe9'")


def test_links_to_splits_class_folders_and_images_are_read(image_folder, tmp_path, caplog):
    expected = _load(image_folder)
    linked = tmp_path / "linked"
    (linked / "train").mkdir(parents=True)
    (linked / "test").symlink_to(image_folder / "test")
    first, *others = CLASSES
    for name in others:
        (linked / "train" / name).symlink_to(image_folder / "train" / name)
    (linked / "train" / first).mkdir()
    for image in (image_folder / "train" / first).iterdir():
        (linked / "train" / first / image.name).symlink_to(image)
    found = _load(linked)
    assert found.classes == CLASSES
    for split in ("train", "test"):
        for ours, theirs in zip(found.splits[split], expected.splits[split], strict=True):
            assert np.array_equal(ours, theirs)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_folders_beside_the_splits_are_named_in_one_line(image_folder, caplog):
    _load(image_folder)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    for name in ("valid", "a", "b", "c", ".hidden"):
        (image_folder / name).mkdir()
    _load(image_folder)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert str(image_folder) in warning
    assert warning.endswith("'a', 'b', 'c', …")


@pytest.mark.parametrize("place", ["train/dragonfly", "validation"])
@pytest.mark.parametrize("target", ["nowhere", "."], ids=["nothing", "itself"])
def test_a_broken_link_in_place_of_a_folder_is_refused(image_folder, place, target):
    path = image_folder / place
    path.symlink_to(path.name if target == "." else target)
    _refused(image_folder, f"{path}:.*a broken link")


def test_one_class_alone_is_refused(image_folder):
    for split in ("train", "test"):
        for name in ("ant", "bee"):
            shutil.rmtree(image_folder / split / name)
    _refused(image_folder, "train:.*only 'cow'")


def test_files_that_are_to_be_skipped_are_not_read(image_folder):
    names = list_image_folder(image_folder).names["train"]
    (image_folder / names[1]).write_bytes(b"damaged")
    kept = list_image_folder(image_folder, [names[1]])
    assert kept.names["train"] == [names[0], *names[2:]]
    assert len(kept.labels["train"]) == len(kept.status["train"]) == len(names) - 1
    with pytest.raises(DataError, match=r"^skip: .*'missing\.png'"):
        list_image_folder(image_folder, ["missing.png"])
    with pytest.raises(DataError, match=r"^skip: expected an image of each class"):
        list_image_folder(image_folder, [name for name in names if name.startswith("train/ant/")])
