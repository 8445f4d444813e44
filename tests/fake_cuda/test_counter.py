from __future__ import annotations

import torch

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
