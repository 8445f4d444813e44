"""A fit on a GPU restores the state of its process. Skipped without one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nfpi import ClassConditionalFlow

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU of CUDA")]

FLOW = {"num_flows": [1], "num_blocks": [0], "hidden_channels": [4]}


def test_generators_and_with_several_gpus_the_current_one_are_restored():
    last = torch.cuda.device_count() - 1
    before = torch.cuda.current_device()
    torch.cuda.set_device(last)
    try:
        states = torch.cuda.get_rng_state_all()
        images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
        ClassConditionalFlow.fit(images, np.arange(40) % 2, flow=FLOW, epochs=1, weight=10.0, progress=False)
        assert all(map(torch.equal, torch.cuda.get_rng_state_all(), states))
        assert torch.cuda.current_device() == last
    finally:
        torch.cuda.set_device(before)
