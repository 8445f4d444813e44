"""Image files of a user's own: which are found, and that each comes as the model takes it or is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nfpi.data import DataError
from nfpi.data.image_files import find_images, read_images
from nfpi.data.sources.imagefolder import find_labelled_images, strip_suffixes

GREY, COLOUR = (1, 4, 6), (3, 4, 6)


def save(path: Path, *shape: int, value: int = 7) -> Path:
    """An image (H, W) or (H, W, 3) of one value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(shape, value, np.uint8)).save(path)
    return path


def test_files_and_folders_give_all_their_images(tmp_path):
    for name in ("a/2.png", "a/1.PNG", "a/deeper/3.jpg", "b.png"):
        save(tmp_path / name, 4, 6)
    save(tmp_path / "a/.hidden/x.png", 4, 6)
    (tmp_path / "a/notes.txt").write_text("none")
    unnamed = (tmp_path / "b.png").rename(tmp_path / "b")
    found = find_images([unnamed, tmp_path / "a"])
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["b", "a/1.PNG", "a/2.png", "a/deeper/3.jpg"]


def test_what_is_no_image_or_folder_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nothing\.png: "):
        find_images([tmp_path / "nothing.png"])
    with pytest.raises(DataError, match=f"{tmp_path}: "):
        find_images([tmp_path])


def test_classes_with_one_folder_name_are_refused(tmp_path):
    save(tmp_path / "a-b/1.png", 4, 6)
    with pytest.raises(DataError, match="classes"):
        find_labelled_images(tmp_path, ["a-b", "a:b"])


def test_a_broken_link_named_as_an_image_is_refused(tmp_path):
    save(tmp_path / "a/1.png", 4, 6)
    (tmp_path / "a/2.png").symlink_to("nowhere.png")
    with pytest.raises(DataError, match=r"2\.png:.*one that cannot be read"):
        read_images(find_images([tmp_path / "a"]), GREY)


def test_labelled_images_lie_in_folders_called_as_classes(tmp_path):
    save(tmp_path / "cat/1.png", 4, 6)
    save(tmp_path / "sea-gull/2.png", 4, 6)
    found = find_labelled_images(tmp_path, ["bee", "cat", "sea/gull"])
    assert [[path.name for path in of_class] for of_class in found] == [[], ["1.png"], ["2.png"]]
    save(tmp_path / "dog/1.png", 4, 6)
    with pytest.raises(DataError, match="dog"):
        find_labelled_images(tmp_path, ["bee", "cat", "sea/gull"])


def test_class_folders_may_be_links(tmp_path):
    save(tmp_path / "elsewhere/1.png", 4, 6)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/cat").symlink_to(tmp_path / "elsewhere")
    assert find_labelled_images(tmp_path / "mine", ["bee", "cat"]) == [[], [tmp_path / "mine/cat/1.png"]]
    (tmp_path / "mine/bee").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"mine/bee:.*a broken link"):
        find_labelled_images(tmp_path / "mine", ["bee", "cat"])


def test_images_of_the_models_size_come_as_they_are(tmp_path):
    grey, colour = save(tmp_path / "g.png", 4, 6, value=5), save(tmp_path / "c.png", 4, 6, 3, value=9)
    assert (read_images([grey], GREY) == np.full((1, 4, 6, 1), 5)).all()
    assert (read_images([colour, colour], COLOUR) == np.full((2, 4, 6, 3), 9)).all()
    assert (read_images([grey], COLOUR) == np.full((1, 4, 6, 3), 5)).all()


@pytest.mark.parametrize(
    ("size", "shape", "received"),
    [
        ((6, 4), GREY, "4×6 pixels in grey"),
        ((4, 6, 3), GREY, "6×4 pixels in colour"),
        ((9, 9, 3), COLOUR, "9×9 pixels in colour"),
    ],
)
def test_others_are_named_or_converted(tmp_path, size, shape, received):
    path = save(tmp_path / "x.png", *size)
    with pytest.raises(DataError, match=f"x.png:.*{received};"):
        read_images([path], shape)
    assert (read_images([path], shape, resize=True) == np.full((1, 4, 6, shape[0]), 7)).all()


def test_names_without_suffix_stay_apart():
    assert strip_suffixes([Path("a.png"), Path("b.jpg")]) == ["a", "b"]
    assert strip_suffixes([Path("a.png"), Path("a.jpg")]) == ["a.png", "a.jpg"]


def test_a_link_to_a_parent_is_not_followed(tmp_path):
    (tmp_path / "a").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "a/1.png")
    for name in ("loop", "again"):
        (tmp_path / "a" / name).symlink_to(tmp_path)
    assert find_images([tmp_path]) == [tmp_path / "a/1.png"]
