import numpy as np
import pytest
from PIL import Image

from nfpi.config import DatasetConfig
from nfpi.data import DataError, export_imagefolder, load_source, read_image_set, write_image_set
from nfpi.data.sources.imagefolder import list_image_folder, read_image_files

CLASSES = ["ant", "bee", "cow"]


def _load(folder, **settings):
    return load_source(DatasetConfig(source="imagefolder", folder=folder, **settings), folder)


def _refused(folder, match, **settings):
    with pytest.raises(DataError, match=match) as caught:
        _load(folder, **settings)
    assert "\n" not in str(caught.value)


def test_export_and_import_give_the_same_images(image_set, tmp_path):
    export_imagefolder(image_set, tmp_path / "png")
    found = list_image_folder(tmp_path / "png")
    images, grey = read_image_files(tmp_path / "png", found.names["train"])
    order = np.argsort(image_set.labels, kind="stable")
    assert np.array_equal(images, image_set.images[order])
    assert np.array_equal(found.labels["train"], image_set.labels[order])
    assert not grey
    export_imagefolder(image_set, tmp_path / "png")  # replaces


def test_export_of_grey_images_and_odd_class_names(tmp_path):
    images = np.arange(32, dtype=np.uint8).reshape(2, 4, 4, 1)
    write_image_set(tmp_path / "set", images, np.array([0, 1]), ["T-shirt/top", ".."])
    export_imagefolder(read_image_set(tmp_path / "set"), tmp_path / "png")
    assert sorted(p.name for p in (tmp_path / "png").iterdir()) == ["-.", "T-shirt-top"]
    read, grey = read_image_files(tmp_path / "png", ["-./00001.png", "T-shirt-top/00000.png"])
    assert grey
    assert np.array_equal(read, np.repeat(images[::-1], 3, axis=3))


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


@pytest.mark.parametrize("name", ["val", "validation"])
def test_a_validation_split_is_taken_if_there_is_one(image_folder, name):
    (image_folder / "test").rename(image_folder / name)
    (image_folder / "train").rename(image_folder / "test")
    _refused(image_folder, "train: expected a folder of class folders")
    export_imagefolder_like(image_folder / "train")
    assert set(_load(image_folder).splits) == {"train", "test", "validation"}


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


def test_images_of_other_sizes_need_image_size(image_folder):
    odd = image_folder / "test" / "bee" / "2.png"
    Image.new("RGB", (9, 7), (10, 20, 30)).save(odd)
    _refused(image_folder, f"{odd}: expected 6×6 pixels .*, received 9×7")
    images = _load(image_folder, image_size=4).splits["test"][0]
    assert images.shape == (12, 4, 4, 3)
    assert np.all(images[6] == (10, 20, 30))


def test_all_splits_have_the_size_of_the_training_images(image_folder):
    for path in (image_folder / "test").rglob("*.png"):
        Image.new("RGB", (5, 5)).save(path)
    _refused(image_folder, r"0\.png: expected 6×6 pixels .*, received 5×5")


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
    _refused(image_folder, f"{path}: expected an image, received one that cannot be read")


def test_sixteen_bits_are_refused(image_folder):
    path = image_folder / "train" / "bee" / "5.png"
    Image.fromarray(np.zeros((6, 6), np.uint16)).save(path)
    _refused(image_folder, f"{path}: expected an image of 8 bits")


def test_classes_must_be_the_same_in_all_splits(image_folder):
    (image_folder / "test" / "cow").rename(image_folder / "test" / "calf")
    _refused(image_folder, "test: expected the same classes as in train, received a difference in 'calf'")


def test_an_empty_class_is_refused(image_folder):
    for path in (image_folder / "train" / "cow").iterdir():
        path.unlink()
    _refused(image_folder, "cow: expected images .*, received none")


def test_a_missing_folder_is_refused(tmp_path):
    _refused(None, "folder: expected one of class folders")
    _refused(tmp_path / "nowhere", "nowhere: expected a folder of images, received none")
    _refused(tmp_path, "expected a folder for each class, received none")
