from __future__ import annotations

import torch
from scaling import COLUMNS, Scale, draw_scaling, measure_scaling

CPU = torch.device("cpu")
LINE = Scale("images", "a line", (1, 2, 4), lambda size, _: 0.5 * size, 1)
CURVE = Scale("levels", "a curve", (1, 2), lambda size, _: 1.0 + size, None)


def test_every_size_of_every_scale_is_measured():
    frame = measure_scaling(CPU, (LINE, CURVE))
    assert list(frame.columns) == list(COLUMNS)
    assert frame["seconds"].tolist() == [0.5, 1.0, 2.0, 2.0, 3.0]
    assert frame["against"].tolist() == ["images"] * 3 + ["levels"] * 2


def test_lines_are_drawn_on_logarithmic_axes_beside_what_they_should_grow_with():
    line, curve = draw_scaling(measure_scaling(CPU, (LINE, CURVE)), (LINE, CURVE)).axes[:2]
    assert (line.get_xscale(), line.get_yscale()) == ("log", "log")
    measured, bound = (drawn_line.get_ydata().tolist() for drawn_line in line.get_lines())
    assert measured == bound == [0.5, 1.0, 2.0]
    assert len(curve.get_lines()) == 1
