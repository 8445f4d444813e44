"""Each question can be answered with no."""

from __future__ import annotations

import math
import weakref
from collections import Counter
from dataclasses import replace

import pytest
import torch

import nfpi.checks.questions
from nfpi.checks.batches import Measured, Trial
from nfpi.checks.questions import (
    answer_questions,
    are_weights_there,
    does_it_build,
    does_it_fit,
    does_it_invert,
    does_it_resume,
    does_the_loader_keep_up,
    how_many_hours,
    measure_reading_rate,
    which_gpus,
)
from nfpi.checks.subject import Subject
from nfpi.checks.work import Images, describe_batch, list_work
from nfpi.data.writer import write_image_set
from nfpi.flows.coupling import Coupling
from nfpi.training.state import TrainingState

from .conftest import only, only_table


def keep_first(subject: Subject, *kinds: str) -> Subject:
    """Keep the work of the first batch of each kind."""
    subject.work = [next(subject.list_distinct(kind)) for kind in kinds]
    return subject


def measure_as(subject: Subject, seconds: float) -> Subject:
    """Pretend that each batch takes these seconds."""
    subject.measured = {describe_batch(subject.resolved.config, work): Measured(seconds, 1.0) for work in subject.work}
    subject.limit_batch = lambda work: work
    return subject


def test_a_rounded_product_fails(make_subject, monkeypatch):
    assert only(does_it_build(make_subject())).verdict == "ok"
    product = torch.matmul
    monkeypatch.setattr(torch, "matmul", lambda a, b: product(a, b).bfloat16().to(a.dtype))
    line = only(does_it_build(make_subject()))
    assert (line.verdict, "TF32" in line.text) == ("FAILED", True)


def test_a_flow_that_disagrees_with_float64_fails(make_subject, monkeypatch):
    one = make_subject()
    assert only(does_it_invert(one)).verdict == "ok"
    forward = Coupling.forward

    def disagreeing(self, x):
        y, log_abs_det = forward(self, x)
        return (y if y.dtype == torch.float64 else y * 1.001), log_abs_det

    monkeypatch.setattr(Coupling, "forward", disagreeing)
    assert only(does_it_invert(one)).verdict == "FAILED"


def test_an_error_that_is_no_number_fails(make_subject, monkeypatch):
    errors = {"z": 1e-7, "log-determinant": math.nan}
    monkeypatch.setattr(nfpi.checks.questions, "compute_flow_errors", lambda *_: errors)
    assert only(does_it_invert(make_subject())).verdict == "FAILED"


@pytest.mark.parametrize(
    ("alter", "verdict"),
    [
        (lambda state: None, "ok"),
        (lambda state: next(state.flow.parameters()).data.mul_(1.01), "FAILED"),
        (lambda state: state.optimizer.state.clear(), "FAILED"),
    ],
)
def test_a_checkpoint_whose_weights_or_moments_were_altered_fails(make_subject, monkeypatch, alter, verdict):
    load = TrainingState.load

    def altered(*arguments):
        state, header = load(*arguments)
        alter(state)
        return state, header

    monkeypatch.setattr(TrainingState, "load", altered)
    assert only(does_it_resume(make_subject())).verdict == verdict


def test_a_step_that_finds_no_memory_fails(make_subject, monkeypatch):
    one = keep_first(make_subject(), "flow_step", "classifier_step")
    assert [line.verdict for line in does_it_fit(one)] == ["ok", "ok"]

    def step(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(Trial, "step", step)
    one = keep_first(make_subject(), "flow_step", "classifier_step")
    lines = list(does_it_fit(one))
    assert [line.verdict for line in lines] == ["FAILED", "ok"]
    assert "training.batch_size" in lines[0].text
    assert one.estimate_seconds(one.main) is None


def test_a_precision_that_the_device_has_not_fails(make_subject):
    line = only(does_it_fit(keep_first(make_subject(training={"precision": "tf32"}), "flow_step")))
    assert (line.verdict, "precision" in line.text, "CPU" in line.text) == ("FAILED", True, True)


def test_the_memory_of_a_step_is_measured_without_the_trials_before(make_subject, monkeypatch):
    one, trials = keep_first(make_subject(), "flow_step", "flow_forward"), []
    initialize = Trial.__init__

    def note(self, *arguments):
        assert [trial() for trial in trials] == [None] * len(trials)
        initialize(self, *arguments)
        trials.append(weakref.ref(self))

    monkeypatch.setattr(Trial, "__init__", note)
    assert not any(one.measure(work).fault for work in one.work)
    assert len(trials) > 1


@pytest.mark.parametrize("kind", ["flow_step", "classifier_step"])
def test_a_loss_that_is_not_finite_fails(make_subject, monkeypatch, kind):
    monkeypatch.setattr("torch.nn.functional.cross_entropy", lambda logits, *_, **__: logits.sum() * torch.nan)
    monkeypatch.setattr(Trial, "step", lambda *_: torch.tensor(torch.nan))
    assert only(does_it_fit(keep_first(make_subject(), kind))).verdict == "FAILED"


def test_large_batches_are_projected_from_smaller_ones_on_a_cpu(make_subject, monkeypatch):
    """A batch of 4 takes 0.1 s here, so one of 16 is measured, and with its 0.4 s one of 64, but no larger one."""
    monkeypatch.setattr(
        "nfpi.checks.subject.measure_batch", lambda config, work, _: Measured(0.025 * work.batch + 0.01, 0.0)
    )
    one = make_subject(training={"batch_size": 1000})
    assert one.measure(one.main).seconds == pytest.approx((0.025 * 64 + 0.01) * 1000 / 64)
    assert sorted(key[4] for key in one.measured) == [4, 16, 64]
    assert one.measure(replace(one.main, batch=2)).seconds == pytest.approx(0.06)


def test_the_hours_of_a_stage_are_its_batches_at_their_measured_speed(make_subject):
    """By hand: runs, epochs and images of preset demo, at an hour a batch."""
    one = measure_as(make_subject(), 3600.0)
    lines = {line.text.split(": ")[0]: line.text for line in how_many_hours(one) if line.check == "hours"}
    config = one.resolved.config
    training, nfa = config.resolve_training("digits", "mef"), config.for_dataset("digits").nfa
    hours = Counter({"augment": -(-nfa.variants * 1150 // nfa.batch_size) + -(-1150 // nfa.batch_size)})
    assert lines["augment"] == f"augment: about {hours['augment']} h for all runs"
    longest = 144 * (training.epochs - 1)
    assert f"{longest:.3g} h for the longest training" in lines["train_flow"]
    assert "all stages" in lines


def test_the_longest_training_on_generated_images_is_of_one_temperature(make_subject):
    one = make_subject(generation={"temperatures": [0.9, 1.0, 1.1]})
    one = measure_as(keep_first(one, "classifier_step"), 3600.0)
    own = one.resolved.config.for_dataset("digits")
    resnet = own.classifiers["resnet18"]
    steps = resnet.epochs * -(-resnet.repeats * own.generation.per_class * 10 // resnet.batch_size)
    (line,) = [line for line in how_many_hours(one) if "longest" in line.text]
    assert f", {steps:.3g} h for the longest training" in line.text
    assert f": about {3 * steps:.3g} h for all runs" in line.text


def test_stages_whose_time_or_number_of_images_is_unknown_are_named(make_subject):
    one = measure_as(keep_first(make_subject(), "flow_step"), 1.0)
    key = describe_batch(one.resolved.config, one.main)
    one.measured[key] = Measured(math.nan, 0.0, "no luck")
    line = only(how_many_hours(one))
    assert (line.verdict, one.main.label in line.text) == ("missing", True)
    unprepared = make_subject(datasets={"digits": {"source": "imagefolder", "folder": "x"}})
    unprepared = measure_as(keep_first(unprepared, "flow_step", "flow_forward"), 1.0)
    assert {line.verdict for line in how_many_hours(unprepared) if line.check == "hours"} == {"missing"}


def test_the_work_on_a_prepared_image_folder_is_that_of_its_images_and_classes(make_subject, resolve_demo, make_images):
    settings = {"datasets": {"digits": {"source": "imagefolder", "folder": "x"}}}
    folder = resolve_demo(**settings).results / "demo/digits/splits"
    for split, per_class in {"train": 20, "validation": 5, "test": 4}.items():
        images = make_images(classes=3, per_class=per_class)
        write_image_set(
            folder / split, images.images, images.labels, images.classes, name="digits", split=split, flip=False
        )
    one = make_subject(**settings)
    assert len(one.prepared["digits"]) == 60
    sizes = Images(60, 15, 12, 3, (1, 8, 8), (1, 8, 8))
    config = one.resolved.config
    expected = [work for work in list_work(config, {"digits": sizes}) if work.subject == "mef"]
    assert [work for work in one.work if work.subject == "mef"] == expected
    assert only(line.text for line in are_weights_there(one)) == "digits: 60 training images (1, 8, 8), 3 classes"


@pytest.mark.parametrize(("workers", "enough"), [(0, 5.0), (2, 1.2)])
def test_a_loader_that_cannot_keep_up_is_slow(make_subject, monkeypatch, workers, enough):
    """Reading before a step adds to its time; workers read beside it."""
    monkeypatch.setattr(nfpi.checks.questions, "measure_reading_rate", lambda *_: 800.0)
    monkeypatch.setattr(nfpi.checks.questions, "count_cores", lambda: 8)
    for needed, verdict in ((800 / enough / 1.01, "ok"), (800 / enough * 1.01, "slow")):
        line = only(does_the_loader_keep_up(measure_as(make_subject(training={"workers": workers}), 8 / needed)))
        assert line.verdict == verdict
        assert ("training.workers" in line.text) == (verdict == "slow")
    one = measure_as(make_subject(training={"workers": 7}), 1e-9)
    assert "more cores" in only(does_the_loader_keep_up(one)).text
    assert only(does_the_loader_keep_up(measure_as(make_subject(), math.nan))).verdict == "missing"


def test_reading_waits_neither_for_a_device_nor_for_batches_made_before(make_subject, monkeypatch):
    """Two workers make four batches ahead, and the first one starts them."""
    seconds, events = iter(range(100)), []

    def read(self, seed, epoch):
        for batch in range(len(self.train) // self.config.batch_size):
            events.append(batch)
            yield None, range(self.config.batch_size)

    def clock():
        events.append("clock")
        return float(next(seconds))

    monkeypatch.setattr(nfpi.checks.questions.TrainingData, "read", read)
    monkeypatch.setattr(nfpi.checks.questions.time, "perf_counter", clock)
    assert measure_reading_rate(make_subject(), 2) == 8 * 4
    assert events == [0, 1, 2, 3, 4, "clock", 5, 6, 7, 8, 9, 10, 11, 12, "clock"]


@pytest.mark.parametrize(("workers", "batches"), [(0, 8), (1, 8), (2, 8), (3, 9), (4, 8), (5, 10)])
def test_reading_is_timed_over_whole_rounds_of_the_workers(make_subject, monkeypatch, workers, batches):
    """They make batches in step, so a part of a round takes as long as a whole one."""

    def read(self, seed, epoch):
        return ((None, range(1)) for _ in range(len(self.train) // self.config.batch_size))

    seconds = iter([0.0, 1.0])
    monkeypatch.setattr(nfpi.checks.questions.TrainingData, "read", read)
    monkeypatch.setattr(nfpi.checks.questions.time, "perf_counter", lambda: next(seconds))
    assert measure_reading_rate(make_subject(), workers) == batches


def test_data_that_are_not_prepared_or_not_there_are_missing(make_subject):
    line = only(are_weights_there(make_subject()))
    assert (line.check, line.verdict, "prepare_data" in line.text) == ("data", "missing", True)
    line = only(are_weights_there(make_subject(datasets={"digits": {"folder": "/not/there"}})))
    assert (line.verdict, "datasets.digits.folder: /not/there" in line.text) == ("missing", True)


def test_weights_of_a_classifier_that_is_trained_only_tested_or_fine_tuned_are_looked_for(make_subject):
    lost = {"eva02_pretrained": {"epochs": 0, "weights": "/not/there.safetensors"}}
    row = {"dataset": "digits", "classifier": "eva02", "augmentation": "standard+nfa", "lambdas": [0, 1]}
    for one in (make_subject(classifiers=lost), make_subject(classifiers=lost, **only_table(["top1"], row))):
        (line,) = [line for line in are_weights_there(one) if line.check == "weights"]
        assert (line.verdict, "classifiers.eva02_pretrained.weights" in line.text) == ("missing", True)


def test_an_autoencoder_that_is_not_there_is_missing(make_subject, tmp_path):
    settings = {"source": "imagefolder", "folder": "x", "image_size": 64, "vae": "/not/there"}
    one = make_subject(datasets={"digits": settings})
    assert one.main.shape == (4, 8, 8)
    assert [line.verdict for line in are_weights_there(one) if "vae" in line.text] == ["missing"]
    one = make_subject(datasets={"digits": settings | {"vae": str(tmp_path)}})
    assert [line.verdict for line in are_weights_there(one) if "vae" in line.text] == []


def test_steps_that_are_alike_are_measured_once(resolve_demo):
    one = Subject.find(resolve_demo(preset="paper"), torch.device("cpu"))
    alike = [work for work in one.work if (work.kind, work.subject, work.shape) == ("flow_step", "mef", (3, 32, 32))]
    assert len({work.dataset for work in alike}) > 2
    assert [work for work in one.list_distinct("flow_step") if work in alike] == alike[:1]


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
