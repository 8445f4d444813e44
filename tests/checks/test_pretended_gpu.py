"""What is said of a GPU, on a processor that passes for one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from nfpi.checks.questions import does_it_fit, how_many_hours, which_gpus
from nfpi.checks.subject import Subject

from .conftest import only
from .test_questions import keep_first, measure_as

GIB = 2**30


@pytest.fixture
def on_h100(monkeypatch, make_subject):
    """The tiny flow on a processor that is called an H100 and has 80 GiB."""
    monkeypatch.setattr(Subject, "on_gpu", True)
    for name, value in {
        "get_device_capability": (9, 0),
        "get_device_properties": SimpleNamespace(total_memory=80 * GIB),
        "get_arch_list": ["sm_80", "sm_90"],
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    return make_subject


def test_the_card_is_named_with_its_memory_and_the_build(on_h100):
    line = only(which_gpus(on_h100()))
    assert "80 GiB, sm_90" in line.text
    assert "with sm_80, sm_90, cuDNN" in line.text


def test_the_memory_of_a_step_is_compared_with_the_cards(on_h100):
    one = measure_as(keep_first(on_h100(), "flow_step"), 1.0)
    line = only(does_it_fit(one))
    assert (line.verdict, line.text.endswith("1.0 of 80.0 GiB")) == ("ok", True)
    (key,) = one.measured
    one.measured = {key: SimpleNamespace(fault="", memory=79.0, seconds=1.0)}
    line = only(does_it_fit(measured_again(one)))
    assert (line.verdict, "batch_size" in line.text) == ("slow", True)


def measured_again(subject):
    """Return what was measured as it is."""
    subject.measure = lambda _: next(iter(subject.measured.values()))
    return subject


@pytest.mark.parametrize(("stage", "kind"), [("train_flow", "flow_step"), ("train_classifier", "classifier_step")])
def test_a_training_longer_than_its_jobs_names_the_retries(on_h100, stage, kind):
    one = on_h100(resources={stage: {"runtime": 60, "gpu": 1}})
    one.work = [next(work for work in one.work if (work.stage, work.kind) == (stage, kind))]
    one = measure_as(one, 3600.0)
    hours = one.work[0].batches / one.work[0].trainings
    (line,) = [line for line in how_many_hours(one) if line.verdict == "slow"]
    assert f"set --retries {hours:.0f}" in line.text
