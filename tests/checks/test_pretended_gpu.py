"""What is said of a GPU, on a processor that passes for one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from nfpi.checks.build import check_build, check_precision
from nfpi.checks.classifiers import check_classifiers
from nfpi.checks.hours import check_hours
from nfpi.checks.machine import check_loader
from nfpi.checks.steps import check_memory, check_speed, check_synchronisations
from nfpi.checks.subject import Subject, Trainer

GIB = 2**30


@pytest.fixture
def on_h100(monkeypatch, make_subject):
    """The tiny flow on a processor that is called an H100 and has 80 GiB, of which 8 are used."""
    monkeypatch.setattr(Subject, "on_gpu", True)
    for name, value in {
        "get_device_name": "NVIDIA H100 80GB HBM3",
        "get_device_capability": (9, 0),
        "get_device_properties": SimpleNamespace(total_memory=80 * GIB),
        "get_arch_list": ["sm_80", "sm_90"],
        "max_memory_reserved": 8 * GIB,
        "set_sync_debug_mode": None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    return make_subject


def only(lines):
    (line,) = lines
    return line


def test_the_card_is_named_with_its_memory_and_the_build(on_h100):
    line = only(check_build(on_h100()))
    assert "80 GiB, sm_90" in line.text
    assert "with sm_80, sm_90, cuDNN" in line.text


def test_the_memory_of_a_step_is_compared_with_the_cards(on_h100, monkeypatch):
    line = only(check_memory(on_h100()))
    assert (line.verdict, line.text.endswith("peak memory 8.0 of 80.0 GiB")) == ("ok", True)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 79 * GIB)
    line = only(check_memory(on_h100()))
    assert (line.verdict, line.text.endswith("nearly full; set training.batch_size below 8")) == ("slow", True)


def test_the_share_of_the_peak_is_told(on_h100):
    one = on_h100()
    line = next(check_speed(one))
    assert "% of the card's peak" in line.text


def test_a_training_longer_than_its_jobs_names_the_retries(on_h100):
    one = on_h100(resources={"train_flow": {"runtime": 60, "gpu": 1}})
    one.seconds[one.main.name] = 60.0
    line = next(check_hours(one))
    hours = 144 * (one.main.training.epochs - 1) * 60 / 3600
    assert line.verdict == "slow"
    assert f"set --retries {-(-int(hours * 60) // 60)}" in line.text


def test_a_classifier_that_trains_longer_than_its_jobs_names_the_retries(on_h100):
    one = on_h100(resources={"train_classifier": {"runtime": 60, "gpu": 1}})
    one.per_image["classifier_step", "swin", "digits"] = 1.0
    swin = one.config.for_dataset("digits").classifiers["swin"]
    hours = swin.epochs * -(-swin.repeats * 1150 // swin.batch_size) * swin.batch_size / 3600
    (line,) = [one for one in check_hours(one) if "longest" in one.text]
    assert line.verdict == "slow"
    assert f"train_classifier: swin: {hours:.2g} h" in line.text
    assert f"set --retries {-(-int(hours * 60) // 60)}" in line.text


def test_a_step_that_waits_for_the_gpu_is_slow(on_h100, monkeypatch):
    assert only(check_synchronisations(on_h100())).verdict == "ok"
    step = Trainer.step

    def waiting(self, *batch):
        if self.state.step == 4:
            raise RuntimeError("called a synchronizing CUDA operation")
        return step(self, *batch)

    monkeypatch.setattr(Trainer, "step", waiting)
    line = only(check_synchronisations(on_h100()))
    assert (line.verdict, "synchronizing" in line.text) == ("slow", True)


def test_classifiers_have_their_whole_batch(on_h100):
    lines = [line for line in check_classifiers(on_h100()) if line.text.startswith("resnet18")]
    assert [line.verdict for line in lines] == ["ok"]
    assert "8×8 pixels in 32-true, batch 100: " in lines[0].text
    assert lines[0].text.endswith("peak memory 8.0 GiB")


def test_float32_where_bfloat16_is_there_is_slow(on_h100, monkeypatch):
    monkeypatch.setattr(
        "nfpi.checks.build.choose_precision", lambda wanted, _: "bf16-mixed" if wanted == "auto" else wanted
    )
    line = next(check_precision(on_h100()))
    assert (line.verdict, "training.precision: auto" in line.text) == ("slow", True)


def test_the_loader_feeds_a_gpu_with_a_margin(on_h100):
    one = on_h100()
    one.seconds[one.main.name] = 1e9
    assert only(check_loader(one)).verdict == "ok"
