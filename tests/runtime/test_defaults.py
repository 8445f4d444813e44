"""The defaults of torch are the standard ones within a context, and the caller's after it."""

from __future__ import annotations

import pytest
import torch

from nfpi.runtime.defaults import cpu_by_default, standard_defaults


@pytest.fixture
def other_defaults():
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)


@pytest.mark.usefixtures("other_defaults")
def test_new_tensors_are_float32_on_the_cpu():
    with standard_defaults():
        inside = torch.zeros(1)
    outside = torch.zeros(1)
    assert (inside.dtype, inside.device.type) == (torch.float32, "cpu")
    assert (outside.dtype, outside.device.type) == (torch.float64, "meta")
    with cpu_by_default():
        assert torch.zeros(1).device.type == "cpu"
    with pytest.raises(ZeroDivisionError), standard_defaults():
        _ = 1 / 0
    assert torch.get_default_dtype() == torch.float64
    assert torch.zeros(1).device.type == "meta"
