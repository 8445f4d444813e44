from __future__ import annotations

import torch
from counting import make_fake_mode

from .counter import DeviceCounter


def test_the_host_waits_for_a_mask_unless_it_selects_what_is_filled():
    x, mask = torch.empty(4, 5, device="meta"), torch.empty(4, 5, dtype=torch.bool, device="meta")
    rows = torch.empty(3, dtype=torch.int64, device="meta")
    with DeviceCounter("meta") as counter:
        x[mask] = torch.empty(7, device="meta")
        x.index_put((mask,), torch.empty(7, device="meta"))
        x.index_put_((mask,), torch.tensor(1.0))  # how PyTorch assigns a number on a GPU: it fills
        x[rows] = torch.empty(5, device="meta")
    assert counter.host_reads == ["aten.index_put_.default", "aten.index_put.default"]


def test_a_mask_of_fake_tensors_selects_nothing():
    with make_fake_mode(), DeviceCounter("cpu"):
        x, grid, mask = torch.empty(4, 3), torch.ones(4, 5, 6), torch.ones(5, dtype=torch.bool)
        assert len((x > 0).nonzero()) == 0
        assert grid[:, mask].shape == (4, 0, 6)
        assert grid[torch.tensor([0, 2, 3]), mask].shape == (0, 6)
        assert grid[:, mask, 0].shape == grid[:, (grid > 0)[0, :, :]].shape == (4, 0)
