"""What is said of a GPU, on a processor that passes for one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from nfpi.checks.questions import does_it_fit
from nfpi.checks.subject import Subject

from .conftest import only
from .test_questions import keep_first, measure_as

GIB = 2**30


@pytest.fixture
def on_h100(monkeypatch, make_subject):
    """The tiny flow on a processor that is called an H100 and has 80 GiB."""
    monkeypatch.setattr(Subject, "on_gpu", True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=80 * GIB))
    return make_subject


def test_the_memory_of_a_step_is_compared_with_the_cards(on_h100):
    one = measure_as(keep_first(on_h100(), "flow_step"), 1.0)
    line = only(does_it_fit(one))
    assert (line.verdict, "80.0 GiB" in line.text) == ("ok", True)
    (key,) = one.measured
    one.measured = {key: SimpleNamespace(fault="", memory=79.0, seconds=1.0)}
    one.measure = lambda _: one.measured[key]
    line = only(does_it_fit(one))
    assert (line.verdict, "batch_size" in line.text) == ("slow", True)
