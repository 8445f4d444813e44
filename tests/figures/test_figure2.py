from typing import Any

import numpy as np
import pytest

from nfpi.config.flows import NfaConfig
from nfpi.data import DataError
from nfpi.figures import FigureInputs
from nfpi.figures.figure2 import (
    AugmentationFigure,
    augment_random_images,
    compute_rms_changes,
    draw,
    draw_augmentations,
)
from nfpi.figures.style import render_figure

NFA = NfaConfig(axes=4, strength=1.0)


def settings(classes: list[str], **changes: Any) -> AugmentationFigure:
    return AugmentationFigure.model_validate({"dataset": "toy", "lambda": 1, "classes": classes, **changes})


def test_originals_come_first_and_are_of_the_classes_asked_for(model, images):
    shown = settings(["class2", "0"], images_per_class=2, variants=4)
    grid, names = augment_random_images(model, images, shown, NFA)
    assert grid.shape == (4, 5, 4, 4, 1)
    assert names == ["class2", "class2", "class0", "class0"]
    for row, name in zip(grid, names, strict=True):
        same = (images.images == row[0]).all((1, 2, 3))
        assert images.labels[same].tolist() == [int(name[-1])]
        assert (row[1:] != row[0]).any((1, 2, 3)).all()


def test_no_strength_gives_the_originals_back(model, images):
    grid, _ = augment_random_images(model, images, settings(["class1"]), NfaConfig(axes=4, strength=0.0))
    assert np.abs(grid[:, 1:].astype(int) - grid[:, :1]).max() <= 1


def test_a_change_is_a_root_mean_square():
    images = np.full((1, 3, 2, 2, 1), 100, np.uint8)
    images[0, 1, 0, 0] = 90
    images[0, 2] = 107
    np.testing.assert_allclose(compute_rms_changes(images), [[5, 7]])


@pytest.mark.parametrize(
    ("name", "count", "named"), [("classs1", 1, "'classs1'"), ("3", 1, "'3'"), ("0", 21, "'0'.*20")]
)
def test_classes_without_enough_images_are_named(model, images, name, count, named):
    with pytest.raises(DataError, match=named):
        augment_random_images(model, images, settings([name], images_per_class=count), NFA)


def test_names_of_classes_are_no_formulas():
    figure = draw_augmentations(np.zeros((1, 2, 8, 8, 3), np.uint8), ["$10_$20"], np.ones((1, 1)))
    assert render_figure(figure, "png")


def test_a_model_and_its_images_are_read(model_files, train_files):
    inputs = FigureInputs({"model": model_files, "train": train_files}, {"nfa": {"axes": 4}})
    drawn = draw(settings(["class2", "0"]), inputs)
    figure = drawn.pictures["figure2"]
    (axes,) = figure.axes
    assert list(drawn.table["class"]) == ["class2"] * 3 + ["class0"] * 3
    notes = [text.get_text() for text in axes.texts if text.get_text()]
    assert notes == [f"Δ {change:.3g}" for change in drawn.table["rms_change"]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["class2", "class0"]
    assert [label.get_text() for label in axes.get_xticklabels()][:2] == ["original", "variant 1"]
