from __future__ import annotations

import torch
from scaling import COLUMNS, Scale, measure_scaling

CPU = torch.device("cpu")
LINE = Scale("images", "a line", (1, 2, 4), lambda size, _: 0.5 * size, 1)
CURVE = Scale("levels", "a curve", (1, 2), lambda size, _: 1.0 + size, None)


def test_every_size_of_every_scale_is_measured():
    frame = measure_scaling(CPU, (LINE, CURVE))
    assert list(frame.columns) == list(COLUMNS)
    assert frame["seconds"].tolist() == [0.5, 1.0, 2.0, 2.0, 3.0]
    assert frame["against"].tolist() == ["images"] * 3 + ["levels"] * 2
