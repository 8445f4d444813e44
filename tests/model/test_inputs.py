"""What users pass becomes arrays of one form, or one line says what was expected and what was received."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from nfpi.model.inputs import check_images, check_labels, check_latents, check_temperature

GREY, COLOUR = (1, 8, 8), (3, 8, 8)
CLASSES = ["ant", "bee", "cat"]


class Refusing:
    """No array, for a reason that is not told."""

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        raise ValueError


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
        (np.zeros((2, 8, 8, 3), np.float32), None, "expected uint8, received float32; for values in [0, 1]"),
        (np.zeros((2, 9, 8, 3), np.uint8), COLOUR, "expected (N, 8, 8, 3), received (2, 9, 8, 3)"),
        (np.zeros((2, 8, 8, 1), np.uint8), COLOUR, "expected (N, 8, 8, 3), received (2, 8, 8, 1)"),
        (np.zeros((2, 3, 8, 8), np.uint8), COLOUR, "received (2, 3, 8, 8); for channels in front"),
        (np.zeros((2, 3, 8, 8), np.uint8), None, "expected (N, H, W, C), received (2, 3, 8, 8); for channels in front"),
        (np.zeros((8, 8, 3), np.uint8), COLOUR, "received (8, 8, 3); for a single image: images[None]"),
        (np.zeros((8, 8, 3), np.uint8), None, "received (8, 8, 3); for a single image: images[None]"),
        (np.zeros((3, 8, 8), np.uint8), COLOUR, "with channels in front: images[None].transpose(0, 2, 3, 1)"),
        (np.zeros((8, 64), np.uint8), GREY, "received (8, 64); for images as rows"),
        (np.zeros((2, 8, 8, 3), int), COLOUR, "expected uint8, received int64; for values from 0 to 255"),
        (np.full((2, 8, 8, 3), 0.5), None, "for values in [0, 1]: (255 * images).round().astype('uint8')"),
        (torch.full((2, 8, 8, 3), 0.5), None, "for values in [0, 1]: (255 * images).round().to(torch.uint8)"),
        (torch.full((2, 8, 8, 3), 200.0), None, "received float32; for values from 0 to 255: images.to(torch.uint8)"),
        (
            np.full((2, 8, 8), 16.0),
            None,
            "for values from 0 to 255: images.astype('uint8'), but if 16 is white: (255 / 16 * images)",
        ),
        (np.full((2, 8, 8), 2.5), None, "received float64; for values from 2.5 to 2.5: scale them to 0 … 255"),
        (np.full((2, 8, 8), -1.0), None, "received float64; for values from -1 to -1: scale them to 0 … 255"),
        (np.full((2, 8, 8), 65535, np.uint16), None, "received uint16; for values from 65535 to 65535: scale them"),
        (np.ones((2, 8, 8), bool), None, "received bool; for black and white: 255 * images.astype('uint8')"),
        (torch.ones(2, 8, 8, dtype=torch.bool), None, "for black and white: 255 * images.to(torch.uint8)"),
        (torch.ones(2, 8, 8, dtype=torch.bfloat16), None, "expected uint8, received bfloat16; for values in [0, 1]"),
        (np.zeros((0, 8, 8)), None, "expected uint8, received float64"),
        (np.zeros((8, 8), np.uint8), GREY, "received (8, 8); for a single image: images[None]"),
        (
            np.zeros((60, 4, 4), np.uint8),
            None,
            "for a single image: images[None]; for grey images: images[..., None]",
        ),
        (
            np.full((2, 8, 8, 3), 200).tolist(),
            COLOUR,
            "received int64; with images = np.asarray(images); for values from 0 to 255: images.astype('uint8')",
        ),
        (
            list(np.zeros((8, 8), np.uint8)),
            GREY,
            "; with images = np.asarray(images); for a single image: images[None]",
        ),
        (np.full((2, 8, 8, 3), np.nan).tolist(), COLOUR, "uint8, received float64; they contain NaN or infinity"),
        ([[0, 1], [2]], None, "images: expected an array, received list"),
        (Refusing(), None, "images: expected an array, received Refusing (ValueError)"),
        (torch.zeros(2, 8, 8, 3, device="meta"), None, "images: expected an array, received Tensor"),
        ([torch.zeros(8, 8, 3, requires_grad=True)], None, "images: expected an array, received list (Can't call"),
        (torch.zeros(2, 8, 8, 3, dtype=torch.cfloat).conj(), None, "expected uint8, received complex64"),
        (torch.zeros(2, 8, 8, 3, dtype=torch.cfloat).conj().imag, None, "expected uint8, received float32"),
        (np.zeros((0, 8, 8, 3), np.uint8), COLOUR, "expected at least one, received (0, 8, 8, 3)"),
        (np.zeros((5, 8, 8), np.uint8), COLOUR, "expected (N, 8, 8, 3), received (5, 8, 8)"),
    ],
)
def test_other_images_are_refused_in_one_line(images, known, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011, the message is compared
        check_images(images, known)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("tensor", [False, True], ids=["array", "tensor"])
@pytest.mark.parametrize(
    ("shape", "known"), [((5, 8, 8, 1), COLOUR), ((5, 8, 8), COLOUR), ((5, 8, 8, 3), GREY)], ids=str
)
def test_grey_images_for_a_model_of_colour_and_the_reverse_are_refused_with_what_converts_them(shape, known, tensor):
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    images = torch.from_numpy(pixels) if tensor else pixels
    with pytest.raises(ValueError, match=r"; for (grey|colour) images: ") as error:
        check_images(images, known)
    given, _, conversion = str(error.value).rpartition(" images: ")
    assert given.endswith("colour" if shape[3:] == (3,) else "grey")
    found = check_images(eval(conversion, {"torch": torch, "images": images}), known)
    files = [Image.fromarray(image.squeeze()).convert("RGB" if known == COLOUR else "L") for image in pixels]
    expected = np.stack([np.asarray(file) for file in files]).reshape(found.shape)
    assert np.abs(found.astype(int) - expected).max() <= (known == GREY)


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
        ([0, 3], "expected 0 to 2, received 3"),
        ([-1, 0], "expected 0 to 2, received -1"),
        (["ant", "dog"], "expected classes of the model (ant, bee, cat), received 'dog'"),
        ([0.5, 1.0], "expected indices or names of classes, received float64"),
        ([True, False], "expected indices or names of classes, received bool"),
        (np.array([0, 1], object), "received object; for whole numbers: np.asarray(labels).astype(int)"),
        ([0, 1, 2], "expected (2,), one for each image, received (3,)"),
        ([[0, 1]], "received (1, 2)"),
        (2, "received (); for a single one: [2]"),
        ("bee", "received (); for a single one: ['bee']"),
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
    for wrong in (z[:, :10], z[:0], z * np.nan, z > 0):
        with pytest.raises(ValueError, match=r"^latents: "):
            check_latents(wrong, GREY)


def test_files_that_are_mapped_to_memory_are_read_without_warnings(tmp_path, recwarn):
    for name, values in {"images": np.zeros((2, 8, 8, 1), np.uint8), "latents": np.zeros((2, 64), np.float32)}.items():
        np.save(tmp_path / name, values)
    images, latents = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("images", "latents"))
    assert np.shares_memory(check_images(images, GREY), images)  # large sets of images stay in the file
    assert check_latents(latents, GREY).shape == (2, 1, 8, 8)
    assert not recwarn


def test_latents_in_bfloat16_are_numbers():
    assert check_latents(torch.ones(2, 64, dtype=torch.bfloat16), GREY).dtype == torch.float32


@pytest.mark.parametrize("temperature", [0, 0.8, np.float32(0.5), torch.tensor(0.5)])
def test_temperatures_are_numbers(temperature):
    assert check_temperature(temperature) == float(temperature)


@pytest.mark.parametrize("temperature", ["0.8", None, -0.1, float("nan"), float("inf"), [0.8], True])
def test_other_temperatures_are_refused(temperature):
    with pytest.raises(ValueError, match=r"^temperature: expected a number of at least 0, received ") as error:
        check_temperature(temperature)
    assert str(error.value).endswith(repr(temperature))
