import numpy as np
import pytest

from nfpi.figures.figure2 import draw_augmentations
from nfpi.figures.samples import draw_samples


def pictures(rows, columns, shape=(8, 6, 3)):
    return np.random.default_rng(0).integers(0, 255, (rows, columns, *shape), dtype=np.uint8)


def mosaic(figure):
    (image,) = figure.axes[0].images
    return np.asarray(image.get_array())


def ticks(figure):
    (axes,) = figure.axes
    return [[label.get_text() for label in labels] for labels in (axes.get_yticklabels(), axes.get_xticklabels())]


def shown(figure, row, column, height, width):
    """The image under a row's and a column's label, at its own size again."""
    (axes,) = figure.axes
    whole = mosaic(figure)
    times = 256 // max(height, width)
    top = round(axes.get_yticks()[row] - times * height / 2)
    left = round(axes.get_xticks()[column] - times * width / 2)
    return whole[top : top + times * height : times, left : left + times * width : times]


@pytest.mark.parametrize("channels", [1, 3])
def test_each_image_is_where_its_labels_are(channels):
    images = pictures(2, 3, (8, 6, channels))
    figure = draw_samples(images, [0.5, 1.0], ["cat", "dog", "frog"])
    assert ticks(figure) == [["0.5", "1"], ["cat", "dog", "frog"]]
    for row in range(2):
        for column in range(3):
            expected = np.broadcast_to(images[row, column], (8, 6, 3))
            np.testing.assert_array_equal(shown(figure, row, column, 8, 6), expected)


def test_blocks_of_rows_stand_apart_and_each_image_is_where_its_labels_are():
    images = pictures(4, 3)
    figure = draw_samples(images, [0.5, 1.0], ["cat", "dog", "frog"], noises=2)
    first, between, last = np.diff(figure.axes[0].get_yticks())
    assert between > first == last
    for row in range(4):
        np.testing.assert_array_equal(shown(figure, row, 2, 8, 6), images[row, 2])
    assert ticks(figure)[0] == ["0.5", "", "1", ""]


def test_few_classes_of_many_images_are_rows_with_blocks_of_columns():
    images = pictures(8, 4)
    figure = draw_samples(images, [0.5, 1.0], ["cat", "dog", "frog", "hen"], noises=4)
    assert ticks(figure) == [["cat", "dog", "frog", "hen"], ["0.5", "", "", "", "1", "", "", ""]]
    gaps = np.diff(figure.axes[0].get_xticks())
    assert gaps[3] > gaps[0] == gaps[4]
    for column in range(8):
        np.testing.assert_array_equal(shown(figure, 2, column, 8, 6), images[column, 2])


def test_notes_stand_below_their_images():
    images = pictures(2, 3, (8, 6, 1))
    figure = draw_augmentations(images, ["cat", "dog"], np.array([[1.0, 2.0], [3.0, 4.0]]))
    (axes,) = figure.axes
    for row in range(2):
        np.testing.assert_array_equal(shown(figure, row, 1, 8, 6), np.broadcast_to(images[row, 1], (8, 6, 3)))
    notes = {text.get_text(): text.get_position() for text in axes.texts if text.get_text()}
    assert list(notes) == ["Δ 1", "Δ 2", "Δ 3", "Δ 4"]
    first, second = axes.get_yticks()
    assert first + 128 < notes["Δ 1"][1] < second - 128
    assert notes["Δ 4"][0] == axes.get_xticks()[2]


def test_large_images_are_not_enlarged():
    assert mosaic(draw_samples(pictures(1, 1, (300, 300, 3)), [1.0], ["cat"])).shape == (300, 300, 3)
