"""What users pass becomes arrays of one form, or one line says what was expected and what was received."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset
from torchvision import datasets, transforms

from nfpi import ClassConditionalFlow
from nfpi.data import DataError, ImageSet
from nfpi.model.inputs import check_images, check_labels, check_latents, load_images, load_training_images

from .conftest import SMALL

QUICK = {"flow": SMALL, "epochs": 2, "weight": 10.0, "progress": False}

GREY, COLOUR = (1, 8, 8), (3, 8, 8)
CLASSES = ["ant", "bee", "cat"]
ORIENTATION = 0x0112
"""EXIF tag"""


@pytest.mark.parametrize(
    ("shape", "known"),
    [
        ((5, 8, 8, 1), GREY),
        ((5, 8, 8), GREY),
        ((5, 8, 8), None),
        ((5, 8, 8, 3), COLOUR),
        ((5, 8, 8, 3), None),
    ],
)
def test_images_become_arrays_with_channels_last(shape, known):
    stored = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    for given in (stored, torch.from_numpy(stored)):
        found = check_images(given, known)
        assert found.shape == (5, 8, 8, 3 if shape[-1] == 3 else 1)
        assert (found.ravel() == stored.ravel()).all()


@pytest.mark.parametrize(
    ("images", "known", "message"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), None, r"float32; for values in \[0, 1\]"),
        (np.zeros((2, 8, 8, 3), int), COLOUR, "int64"),
        (np.zeros((0, 8, 8)), None, "float64"),
        (np.zeros((2, 9, 8, 3), np.uint8), COLOUR, r"\(N, 8, 8, 3\), received \(2, 9, 8, 3\)"),
        (np.zeros((5, 8, 8), np.uint8), COLOUR, r"\(5, 8, 8\)"),
        (np.zeros((8, 64), np.uint8), GREY, r"\(8, 64\)"),
        (np.zeros((2, 3, 8, 8), np.uint8), None, r"transpose\(0, 2, 3, 1\)"),
        (np.zeros((8, 8, 3), np.uint8), None, r"images\[None\]"),
        (np.zeros((0, 8, 8, 3), np.uint8), COLOUR, r"\(0, 8, 8, 3\)"),
        (np.array(7, np.uint8), GREY, r"received \(\)"),
    ],
)
def test_other_images_are_refused(images, known, message):
    with pytest.raises(ValueError, match=f"^images: .*{message}"):
        check_images(images, known)


@pytest.mark.parametrize(
    "labels",
    [
        [0, 2, 1],
        np.array([0, 2, 1], np.uint8),
        torch.tensor([0, 2, 1]),
        ["ant", "cat", "bee"],
        np.array(["ant", "cat", "bee"], object),
    ],
)
def test_labels_become_indices(labels):
    found = check_labels(labels, CLASSES, 3)
    assert found.dtype == np.int64
    assert found.tolist() == [0, 2, 1]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 3], "3"),
        ([-1, 0], "-1"),
        (["ant", "dog"], "'dog'"),
        ([0.5, 1.0], "float64"),
        ([0, 1, 2], "(3,)"),
        ([[0, 1]], "(1, 2)"),
    ],
)
def test_other_labels_are_refused(labels, message):
    with pytest.raises(ValueError, match=r"^labels: ") as error:
        check_labels(labels, CLASSES, 2)
    assert message in str(error.value)


def test_latents_are_rows_or_images_of_finite_numbers():
    z = np.random.default_rng(0).normal(size=(3, 64))
    assert check_latents(z, GREY).shape == (3, 1, 8, 8)
    assert torch.equal(check_latents(z.reshape(3, 1, 8, 8), GREY), check_latents(torch.from_numpy(z), GREY))
    for wrong in (z[:, :10], z[:0], z * np.nan, z > 0, np.array(1.0)):
        with pytest.raises(ValueError, match=r"^latents: "):
            check_latents(wrong, GREY)


def test_files_that_are_mapped_to_memory_are_read_without_warnings(tmp_path, recwarn):
    for name, values in {"images": np.zeros((2, 8, 8, 1), np.uint8), "latents": np.zeros((2, 64), np.float32)}.items():
        np.save(tmp_path / name, values)
    images, latents = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("images", "latents"))
    assert np.shares_memory(check_images(images, GREY), images)  # large sets of images stay in the file
    assert check_latents(latents, GREY).shape == (2, 1, 8, 8)
    assert not recwarn


# ---- files and data sets ------------------------------------------------------------------------------------


class Pictures(Dataset):
    """The images of a set as PIL images or tensors, each of which may be read once."""

    def __init__(self, images: ImageSet, convert: Callable[[Image.Image], Any], *, named: bool = True) -> None:
        self.images, self.convert, self.read = images, convert, list[int]()
        if named:
            self.classes = images.classes

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        assert index not in self.read
        self.read.append(index)
        return self.convert(Image.fromarray(self.images.images[index].squeeze())), int(self.images.labels[index])


class Items(Dataset):
    """Any items, and names of classes if there are some."""

    def __init__(self, items: Sequence[Any], classes: Sequence[Any] | None = None) -> None:
        self.items, self.classes = items, classes

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


@pytest.fixture
def folder(held_out, tmp_path) -> Path:
    """The held-out images in one folder per class."""
    for index, (image, label) in enumerate(zip(held_out.images, held_out.labels, strict=True)):
        path = tmp_path / "images" / held_out.classes[label] / f"{index:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(path)
    return tmp_path / "images"


def test_files_and_folders_are_predicted_as_their_pixels(fitted, held_out, folder):
    files = sorted(folder.rglob("*.png"))
    pixels = np.stack([np.asarray(Image.open(file)) for file in files])
    expected = fitted.log_prob(pixels)
    for given in (folder, str(folder), files, [str(file) for file in files], np.array(list(map(str, files)))):
        assert (fitted.log_prob(given) == expected).all()
    assert fitted.predict(files[0]).tolist() == [expected[0].argmax()]
    labels = [file.parent.name for file in files]
    own = fitted.bits_per_dim(files, labels)
    assert (own == fitted.bits_per_dim(pixels, labels)).all()


def test_labels_of_a_folder_are_the_names_of_its_folders(fitted, held_out, folder):
    found = fitted.evaluate(folder)
    assert found["nf_acc"] == fitted.evaluate(held_out.images, held_out.labels)["nf_acc"]
    assert fitted.calibrate(folder).calibration == fitted.calibrate(held_out.images, held_out.labels).calibration
    assert fitted.refit(folder).prior.mean.shape == (3, 64)
    files = sorted(folder.rglob("*.png"))
    for given in (files, files[0]):
        with pytest.raises(ValueError, match=r"^labels: expected one for each image.*received none$"):
            fitted.evaluate(given)


def test_files_of_another_size_are_refused_or_resized(fitted, folder):
    Image.new("RGB", (20, 16), (200, 9, 9)).save(folder / "large.png")
    with pytest.raises(DataError, match=r"large\.png: expected 8×8 pixels in grey .*model\.resize = True\) converts$"):
        fitted.predict(folder)
    assert len(replace(fitted, resize=True).predict(folder)) == 61


@pytest.mark.parametrize("validation", ["folder", "share", "pictures"])
def test_a_folder_is_fitted_as_its_pixels(held_out, folder, validation):
    def fit(*given: Any) -> ClassConditionalFlow:
        pictures = Pictures(held_out, lambda image: image)
        others = {"folder": folder, "share": 0.25, "pictures": pictures}[validation]
        return ClassConditionalFlow.fit(*given, validation=others, **QUICK)

    model, files = fit(folder), sorted(folder.rglob("*.png"))
    assert model.classes == held_out.classes
    assert model.config["validation"]["n"] == (15 if validation == "share" else 60)
    pixels, labels = np.stack([np.asarray(Image.open(file)) for file in files]), [file.parent.name for file in files]
    for given in (pixels, files):
        assert (fit(given, labels).encode(held_out.images) == model.encode(held_out.images)).all()


def test_classes_that_are_given_order_those_of_a_folder_or_data_set(held_out, folder):
    classes = held_out.classes[::-1]
    names = np.array(held_out.classes)[held_out.labels]
    files = sorted(folder.rglob("*.png"))
    for given, *labels in (
        (folder, files, [file.parent.name for file in files]),
        (Pictures(held_out, lambda image: image), held_out.images, names),
    ):
        model, expected = (ClassConditionalFlow.fit(*images, classes=classes, **QUICK) for images in ((given,), labels))
        assert model.classes == classes
        assert (model.prior.mean == expected.prior.mean).all()
    for others in (["class0", "class1", "dog"], ["class0", "class1"], [*classes, "dog"]):
        with pytest.raises(ValueError, match=r"^labels: expected .*(class2|dog)'"):
            ClassConditionalFlow.fit(folder, classes=others, **QUICK)


def test_a_folder_of_grey_and_colour_images_is_used_as_it_was_fitted(folder):
    Image.new("RGB", (8, 8), (200, 9, 9)).save(folder / "class0/red.png")
    model = ClassConditionalFlow.fit(folder, validation=folder, **QUICK)
    assert model.shape == (8, 8, 3)
    assert len(model.predict(folder)) == 61
    with pytest.raises(ValueError, match="61 of its training images"):
        model.evaluate(folder)


def test_a_size_is_refused_without_files(held_out):
    for given in ((held_out.images, held_out.labels), (Pictures(held_out, lambda image: image),)):
        with pytest.raises(ValueError, match=r"^size: expected paths .*received (ndarray|Pictures)$"):
            ClassConditionalFlow.fit(*given, size=4, **QUICK)


@pytest.mark.parametrize("images", [np.array(7), np.array("cat.png")])
def test_a_single_value_is_no_list_of_paths(images):
    assert load_images(images, GREY) is images


def test_files_are_refused_for_a_model_of_latents(folder):
    with pytest.raises(ValueError, match=r"^images: expected an array of 4 channels, such as latents"):
        load_images(folder, (4, 8, 8))


def test_files_are_resized_for_a_fit(folder):
    Image.new("L", (20, 16)).save(folder / "class0/large.png")
    with pytest.raises(DataError, match=r"large\.png: .*size="):
        ClassConditionalFlow.fit(folder, **QUICK)
    with pytest.raises(DataError, match=r"large\.png: .*size= of fit"):
        ClassConditionalFlow.fit(np.zeros((6, 8, 8), np.uint8), ["class0", "class1", "class2"] * 2, validation=folder)
    tiny = {"num_flows": [1], "num_blocks": [1], "hidden_channels": [8]}
    model = ClassConditionalFlow.fit(folder, size=4, validation=folder, **QUICK | {"flow": tiny})
    assert model.shape == (4, 4, 1)
    assert model.config["validation"]["n"] == 61


CONVERSIONS = {
    "PIL": lambda image: image,
    "ToTensor": transforms.ToTensor(),
    "PILToTensor": transforms.PILToTensor(),
}


@pytest.mark.parametrize("convert", CONVERSIONS.values(), ids=CONVERSIONS)
@pytest.mark.parametrize("shape", [GREY, COLOUR])
def test_a_data_set_is_read_once_as_its_pixels(make_images, convert, shape):
    images = make_images(shape)
    every = ImageSet(
        np.arange(64 * shape[0] * 60).astype(np.uint8).reshape(60, 8, 8, shape[0]), images.labels, images.meta
    )
    loaded, labels, names = load_training_images(Pictures(every, convert), None)
    assert (check_images(loaded, shape) == every.images).all()
    assert labels.tolist() == [every.classes[label] for label in every.labels]
    assert names == every.classes
    assert (load_images(Pictures(every, convert), shape) == every.images).all()


def test_labels_of_a_data_set_are_matched_by_name(fitted, held_out):
    renamed = ImageSet(held_out.images, 2 - held_out.labels, {**held_out.meta, "classes": held_out.classes[::-1]})
    expected = fitted.evaluate(held_out.images, held_out.labels)
    part = Subset(Pictures(renamed, lambda image: image), range(60))
    for given in (part, Pictures(held_out, lambda image: image, named=False)):
        assert fitted.evaluate(given) == expected
    other = ImageSet(held_out.images, held_out.labels, {**held_out.meta, "classes": ["a", "b", "c"]})
    with pytest.raises(ValueError, match=r"^labels: expected classes of the model .*received"):
        fitted.evaluate(Pictures(other, lambda image: image))


def test_a_data_set_of_torchvision_is_fitted_and_predicted():
    data = datasets.FakeData(40, (1, 8, 8), 2, transforms.ToTensor())
    model = ClassConditionalFlow.fit(data, **QUICK)
    assert model.classes == ["0", "1"]
    assert model.predict(data).shape == (40,)


def test_the_bar_of_a_data_set_has_its_length_from_the_start(held_out, capsys):
    load_training_images(Pictures(held_out, lambda image: image), None, progress=True)
    assert "| 0/60 [" in capsys.readouterr().err
    load_training_images(Pictures(held_out, lambda image: image), None, progress=False)
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([Image.new("L", (8, 8))] * 4, "labels: expected one for each image"),
        (
            [(Image.new("L", (8, 8)), 0), (Image.new("L", (9, 8)), 1)],
            "image 1: expected 8 × 8 × 1 .*, received 8 × 9",
        ),
        ([(torch.randn(1, 8, 8), 0)] * 4, r"in \[0, 1\] .*without Normalize.*, received torch.float32 \(1, 8, 8\)$"),
        ([(torch.zeros((1, 8, 8), dtype=torch.int64), 0)] * 4, "uint8 or in .*received torch.int64"),
        ([(torch.zeros((2, 1, 8, 8)), 0)] * 4, r"\(C, H, W\), .*received torch.float32 \(2, 1, 8, 8\)$"),
        ([(Image.new("I", (8, 8)), 0)] * 4, "data set, image 0: expected an image of 8 bits per channel, .* mode I$"),
        ([(Image.new("I;16", (8, 8)), 0)] * 4, "received mode I;16$"),
        ([(Image.new("L", (8, 8)), 0, 1)] * 4, "pair with its label, received 3 values$"),
        ([{"image": Image.new("L", (8, 8))}] * 4, "data set, image 0: expected .*received dict$"),
        ([(Image.new("L", (8, 8)), np.eye(2)[0])] * 4, r"^labels: expected \(4,\), .*received \(4, 2\)$"),
        ([(Image.new("L", (8, 8)), 0)] * 4, "labels: expected two distinct classes"),
        ([], "images: expected at least one"),
    ],
)
def test_what_is_wrong_with_a_data_set_is_one_line(items, message):
    with pytest.raises(ValueError, match=message) as error:
        ClassConditionalFlow.fit(Items(items), **QUICK)
    assert len(str(error.value).splitlines()) == 1


def test_a_data_set_without_indices_is_refused(fitted):
    class Stream(IterableDataset):
        def __iter__(self) -> Iterator[Any]:
            return iter([Image.new("L", (8, 8))])

    with pytest.raises(ValueError, match=r"^data set: .*received an IterableDataset$"):
        fitted.predict(Stream())


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_pil_images_of_a_data_set_are_those_of_their_files(tmp_path, mode):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 4), np.uint8)
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # to be rotated by 90°
    Image.fromarray(pixels).convert(mode).save(tmp_path / "x.tif", exif=exif)
    shape = GREY if mode in ("1", "L", "LA") else COLOUR
    with Image.open(tmp_path / "x.tif") as image:
        assert image.mode == mode
        found = load_images(Items([image]), shape)
    assert (found == load_images(tmp_path / "x.tif", shape)).all()


def test_a_data_set_of_tensors_alone_has_images_without_labels(held_out):
    tensors = torch.from_numpy(held_out.images).permute(0, 3, 1, 2)
    loaded, labels, _ = load_training_images(TensorDataset(tensors), None)
    assert (loaded == held_out.images).all()
    assert labels is None


def test_labels_that_a_prediction_does_not_need_may_be_of_any_kind(fitted, held_out):
    items = [(image.transpose(2, 0, 1), {"boxes": []}) for image in torch.from_numpy(held_out.images).numpy()]
    tensors = [(torch.from_numpy(image), label) for image, label in items]
    assert (fitted.predict(Items(tensors, ["a", "b"])) == fitted.predict(held_out.images)).all()


def test_names_of_a_data_set_become_text_and_those_without_images_are_left_out():
    names = [("N/A",), ("tench", "Tinca tinca"), ("crane",), 7]
    items = [(Image.new("L", (8, 8), level), 1 + (level > 9)) for level in range(20)]
    model = ClassConditionalFlow.fit(Items(items, names), **QUICK)
    assert model.classes == ["('tench', 'Tinca tinca')", "('crane',)"]
    others = Items([(Image.new("L", (8, 8), 30 + level), 1 + level) for level in range(2)], names)
    assert model.evaluate(others)["n"] == 2
