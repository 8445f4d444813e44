import itertools

import numpy as np
import pytest
from matplotlib.cbook import is_math_text
from matplotlib.colors import to_rgb

from nfpi.figures.style import CLASS_COLOURS, escape_math, format_weight_label, get_class_style

# Machado, Oliveira and Fernandes (2009), severity 1: linear RGB as it is seen without one kind of cone.
VISION = {
    "all cones": np.eye(3),
    "no long": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no middle": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "no short": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab(colour: str, vision) -> np.ndarray:
    """CIE L*a*b* of a colour, as it is seen."""
    encoded = np.array(to_rgb(colour))
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(vision) @ linear, 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    t = to_xyz @ seen / (0.9505, 1, 1.089)
    x, y, z = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", VISION.values(), ids=VISION)
def test_ten_classes_stay_apart_for_every_eye(vision):
    """A difference of 2.3 can just be noticed; these are to be told apart as small points."""
    seen = [lab(colour, vision) for colour in CLASS_COLOURS]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 18
    assert min(np.linalg.norm(colour - lab("white", vision)) for colour in seen) > 15


def test_no_two_classes_are_grey():
    """Greys differ in lightness alone, which small points hardly show."""
    colours = [lab(colour, np.eye(3)) for colour in CLASS_COLOURS]
    assert sum(np.hypot(*colour[1:]) < 10 for colour in colours) <= 1


def test_a_hundred_classes_have_each_its_colour_and_marker():
    assert len({get_class_style(index) for index in range(100)}) == 100
    assert len({get_class_style(index)[0] for index in range(10)}) == 10
    assert len({get_class_style(index)[1] for index in range(10)}) == 10


@pytest.mark.parametrize(
    ("weight", "text"), [(0, "$0$"), (500, "$500$"), (1e3, "$10^{3}$"), (3e4, r"$3\cdot10^{4}$")], ids=str
)
def test_weights_as_mathematics(weight, text):
    assert format_weight_label(weight) == text


@pytest.mark.parametrize("text", ["5 $", "$10_$20", "from $x to $y", "$$", "100 %"])
def test_a_users_text_is_no_formula(text):
    assert not is_math_text(escape_math(text))
    assert escape_math(text).replace(r"\$", "$") == text
