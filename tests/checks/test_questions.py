"""Each question can be answered with no."""

from __future__ import annotations

import math
import time
import weakref
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import nfpi.checks.batches
import nfpi.checks.questions
from nfpi.checks.batches import Measured, Subject, Trial
from nfpi.checks.questions import (
    answer_questions,
    are_images_known,
    does_it_fit,
    how_many_hours,
    which_gpus,
)
from nfpi.checks.work import Images, Work, list_work
from nfpi.data.writer import write_image_set

from .conftest import only

GIB = 2**30


def keep_first(subject: Subject, *stages: str) -> Subject:
    """Keep the first training of each stage."""
    subject.work = [next(work for work in subject.work if work.stage == stage) for stage in stages]
    return subject


def first_flow(subject: Subject) -> Work:
    """Return the training of the first flow."""
    return next(work for work in subject.work if work.stage == "train_flow")


def measure_as(subject: Subject, seconds: float, memory: float = 1.0) -> Subject:
    """Pretend that each step takes these seconds, and this memory."""
    subject.measure = lambda work: Measured(seconds, memory)
    return subject


def test_a_step_that_finds_no_memory_fails(make_subject, monkeypatch):
    one = keep_first(make_subject(), "train_flow", "train_classifier")
    assert [line.verdict for line in does_it_fit(one)] == ["ok", "ok"]
    make = nfpi.checks.batches.make_flow_trial

    def step():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(
        nfpi.checks.batches, "make_flow_trial", lambda *arguments: make(*arguments) and SimpleNamespace(step=step)
    )
    lines = list(does_it_fit(keep_first(make_subject(), "train_flow", "train_classifier")))
    assert [line.verdict for line in lines] == ["FAILED", "ok"]
    assert "training.batch_size" in lines[0].text


def test_a_precision_that_the_device_has_not_fails(make_subject):
    line = only(does_it_fit(keep_first(make_subject(training={"precision": "tf32"}), "train_flow")))
    assert (line.verdict, "precision" in line.text, "CPU" in line.text) == ("FAILED", True, True)


def test_the_memory_of_a_step_is_measured_without_the_trials_before(make_subject, monkeypatch):
    one, trials = keep_first(make_subject(), "train_flow"), []
    make = nfpi.checks.batches.make_flow_trial

    def note(*arguments):
        assert [trial() for trial in trials] == [None] * len(trials)
        trial = make(*arguments)
        trials.append(weakref.ref(trial.training))
        return trial

    monkeypatch.setattr(nfpi.checks.batches, "make_flow_trial", note)
    assert not one.measure(first_flow(one)).fault
    assert len(trials) > 1


@pytest.mark.parametrize("stage", ["train_flow", "train_classifier"])
def test_a_loss_that_is_not_finite_fails(make_subject, monkeypatch, stage):
    monkeypatch.setattr(Trial, "step", lambda *_: torch.tensor(torch.nan))
    assert only(does_it_fit(keep_first(make_subject(), stage))).verdict == "FAILED"


@pytest.mark.parametrize(("memory", "verdict"), [(1.0, "ok"), (79.0, "slow")])
def test_the_memory_of_a_step_is_compared_with_the_cards(make_subject, monkeypatch, memory, verdict):
    """On a processor that is called an H100 and has 80 GiB."""
    monkeypatch.setattr(Subject, "on_gpu", True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=80 * GIB))
    line = only(does_it_fit(measure_as(keep_first(make_subject(), "train_flow"), 1.0, memory)))
    assert (line.verdict, "80.0 GiB" in line.text, "batch_size" in line.text) == (verdict, True, verdict == "slow")


def test_large_batches_are_projected_from_smaller_ones_on_a_cpu(make_subject, monkeypatch):
    """A batch of 4 takes 0.1 s here, so one of 16 is measured, and with its 0.4 s one of 64, but no larger one."""
    monkeypatch.setattr(
        nfpi.checks.batches, "measure_step", lambda config, work, _: Measured(0.025 * work.batch + 0.01, 0.0)
    )
    one = make_subject(training={"batch_size": 1000})
    assert one.measure(first_flow(one)).seconds == pytest.approx((0.025 * 64 + 0.01) * 1000 / 64)
    assert sorted(batch for *_, batch in one.measured) == [4, 16, 64]
    assert one.measure(replace(first_flow(one), batch=2)).seconds == pytest.approx(0.06)


def test_on_one_core_other_programs_do_not_count(make_subject, monkeypatch):
    """A step that waits most of the time for another program, as here for a sleep, takes no longer."""

    def wait_and_step() -> torch.Tensor:
        time.sleep(0.02)
        end = time.process_time() + 0.002
        while time.process_time() < end:
            pass
        return torch.zeros(())

    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(nfpi.checks.batches, "_SECONDS", 0.01)
    monkeypatch.setattr(nfpi.checks.batches, "make_flow_trial", lambda *_: SimpleNamespace(step=wait_and_step))
    one = make_subject()
    assert nfpi.checks.batches.measure_step(one.config, first_flow(one), one.device).seconds < 0.01


def test_the_hours_of_a_training_are_its_steps_at_their_measured_speed(make_subject):
    """By hand: epochs and batches of preset demo, and the classifiers of three temperatures, at an hour a step."""
    one = measure_as(make_subject(generation={"temperatures": [0.9, 1.0, 1.1]}), 3600.0)
    flow = first_flow(one)
    classifier = next(work for work in one.work if work.subject == "resnet18" and work.trainings == 3)
    one.work = [flow, classifier]
    lines = {line.text.split(": ")[1]: line.text for line in how_many_hours(one) if "for all runs" in line.text}
    own = one.config.for_dataset("digits")
    resnet = own.classifiers["resnet18"]
    epochs = one.config.resolve_training("digits", "mef").epochs - 1
    steps = resnet.epochs * -(-resnet.repeats * own.generation.per_class * 10 // resnet.batch_size)
    assert f"about {144 * epochs:.3g} h for all runs" in lines["mef"]
    assert f"about {3 * steps:.3g} h for all runs, {steps:.3g} h for the longest training" in lines["resnet18"]


def test_a_training_whose_step_failed_has_no_hours(make_subject):
    one = keep_first(make_subject(), "train_flow")
    one.measure = lambda work: Measured(math.nan, 0.0, "no luck")
    assert [line.verdict for line in how_many_hours(one) if first_flow(one).label in line.text] == ["missing"]


def test_the_sizes_of_a_prepared_image_folder_are_those_of_its_images(make_subject, resolve_demo, make_images):
    settings = {"datasets": {"digits": {"source": "imagefolder", "folder": "x"}}}
    folder = resolve_demo(**settings).results / "demo/digits/splits"
    images = make_images(classes=3, per_class=20)
    write_image_set(
        folder / "train", images.images, images.labels, images.classes, name="digits", split="train", flip=False
    )
    one = make_subject(**settings)
    assert one.images == {"digits": Images(60, 3, (1, 8, 8))}
    expected = [work for work in list_work(one.config, one.images) if work.subject == "mef"]
    assert [work for work in one.work if work.subject == "mef"] == expected
    assert only(are_images_known(one)).verdict == "ok"


def test_a_data_set_of_unknown_size_is_named_and_its_trainings_are_left_out(make_subject):
    rows = [{"dataset": dataset, "lambdas": [0], "classifier": None} for dataset in ("digits", "pets")]
    tables = {"*": None, "t": {"metrics": ["nf_acc"], "experiments": rows}}
    pets = {"source": "imagefolder", "folder": "x"}
    one = make_subject(datasets={"pets": pets}, tables=tables, figures={"*": None}, claims={"*": None})
    assert [(line.verdict, line.text.split(":")[0]) for line in are_images_known(one)] == [
        ("ok", "digits"),
        ("missing", "pets"),
    ]
    assert {work.dataset for work in one.work} == {"digits"}


def test_a_promised_gpu_that_is_not_there_fails_and_ends_the_list(make_subject, resolve_demo, monkeypatch):
    monkeypatch.delenv("NFPI_DEVICE", raising=False)
    monkeypatch.setattr(nfpi.checks.questions, "count_visible_gpus", lambda: 0)
    wanted = {"cluster": {}, "resources": {"train_flow": {"gpu": 2}}}
    assert only(answer_questions(resolve_demo(**wanted))).verdict == "FAILED"
    monkeypatch.setattr(nfpi.checks.questions, "count_visible_gpus", lambda: 1)
    line = only(which_gpus(make_subject(**wanted)))
    assert (line.verdict, "resources.train_flow.gpu" in line.text) == ("slow", True)
    monkeypatch.setenv("NFPI_DEVICE", "cpu")
    assert only(which_gpus(make_subject(**wanted))).verdict == "ok"
