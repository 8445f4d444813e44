"""What users pass becomes arrays of one form, or one line says what was expected and what was received."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nfpi.model.inference import check_images, check_labels, check_latents

GREY, COLOUR = (1, 8, 8), (3, 8, 8)
CLASSES = ["ant", "bee", "cat"]


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
