"""Each check can fail."""

from __future__ import annotations

import math
import os
import weakref
from collections import Counter, namedtuple
from dataclasses import replace
from importlib import import_module
from pkgutil import iter_modules

import pytest
import torch
from PIL import Image

import nfpi.checks.build
import nfpi.checks.classifiers
import nfpi.checks.machine
import nfpi.checks.steps
import nfpi.flows
from nfpi.benchmark.cards import CARDS, PEAKS, find_peak
from nfpi.benchmark.work import list_work
from nfpi.checks.build import check_float32, check_precision
from nfpi.checks.classifiers import check_classifiers
from nfpi.checks.flow import SeriesErrors, check_bounds, check_flow_precision
from nfpi.checks.given import check_account, check_autoencoder, check_data, check_weights
from nfpi.checks.hours import check_hours, check_passes, compute_stage_hours
from nfpi.checks.machine import check_loader, check_shared_memory, check_threads, measure_reading_rate
from nfpi.checks.report import Line
from nfpi.checks.steps import check_checkpoint, check_memory, check_speed, in_format
from nfpi.checks.subject import Subject
from nfpi.checks.workloads import compose_preparation, find_workloads, make_random_images
from nfpi.config.datasets import DatasetBlock
from nfpi.data.writer import write_image_set
from nfpi.flows.coupling import Coupling, MatrixExponentialCoupling, SeriesCoupling
from nfpi.runtime.divergence import TrainingDiverged
from nfpi.training.state import TrainingState


def only(lines) -> Line:
    (line,) = lines
    return line


def test_a_rounded_product_fails(make_subject, monkeypatch):
    assert only(check_float32(make_subject())).verdict == "ok"
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: torch.mm(a, b).bfloat16().to(a.dtype))
    line = only(check_float32(make_subject()))
    assert line.verdict == "FAILED"
    assert "TF32" in line.text


def test_a_precision_that_the_device_has_not_fails(make_subject):
    found = {line.text: line.verdict for line in check_precision(make_subject(training={"precision": "tf32"}))}
    (failed,) = (text for text, verdict in found.items() if verdict == "FAILED")
    assert "training of mef on digits: precision: expected auto or one that this device (CPU) supports" in failed


def test_a_flow_that_disagrees_with_float64_fails(make_subject, monkeypatch):
    one = make_subject()
    assert only(check_flow_precision(one)).verdict == "ok"
    forward = Coupling.forward

    def disagreeing(self, x):
        y, log_abs_det = forward(self, x)
        return (y if y.dtype == torch.float64 else y * 1.001), log_abs_det

    monkeypatch.setattr(Coupling, "forward", disagreeing)
    line = only(check_flow_precision(one))
    assert line.verdict == "FAILED"
    assert "expected less than 0.0001" in line.text


def test_an_error_that_is_no_number_fails(make_subject, monkeypatch):
    errors = {"z": 1e-7, "log-determinant": math.nan}
    monkeypatch.setattr("nfpi.checks.flow.compute_flow_errors", lambda *_: errors)
    assert only(check_flow_precision(make_subject())).verdict == "FAILED"


def test_a_series_that_is_too_short_fails(make_subject, monkeypatch):
    assert only(check_bounds(make_subject())).verdict == "ok"
    monkeypatch.setattr(SeriesCoupling, "bound_entries", lambda self: 0.01)
    line = only(check_bounds(make_subject()))
    assert line.verdict == "FAILED"
    assert "training.learning_rate" in line.text


def test_series_that_double_are_slow(make_subject, monkeypatch):
    line = only(check_bounds(make_subject()))
    assert "products per coupling at the beginning, " in line.text
    found = iter([[3, 4, 5], [3, 4, 5], [3, 8, 9]])  # the second one is that of the row of the log
    monkeypatch.setattr("nfpi.checks.flow.SeriesBounds.count_products", lambda _: next(found))
    line = only(check_bounds(make_subject()))
    assert line.verdict == "slow"
    assert "3 to 5 matrix products per coupling at the beginning, 3 to 9 at the end" in line.text
    assert "training.learning_rate" in line.text


def test_weights_that_diverge_in_the_last_step_fail(make_subject, monkeypatch):
    found = iter([[3, 4, 5], [3, 4, 5], []])
    monkeypatch.setattr("nfpi.checks.flow.SeriesBounds.count_products", lambda _: next(found))
    line = only(check_bounds(make_subject()))
    assert line.verdict == "FAILED"
    assert (
        "an exponent of a coupling became too large for its series: set a smaller training.learning_rate" in line.text
    )


def test_the_error_of_a_short_series_is_a_bound_of_the_real_one():
    torch.manual_seed(0)
    coupling = MatrixExponentialCoupling(8, 8, 1)
    torch.nn.init.constant_(coupling.rescale, 1.0)
    coupling.held_bound = 0.3
    x = torch.randn(2, 8, 4, 4)
    coupling.initialize(x)
    coupling.train()
    with torch.no_grad(), SeriesErrors(coupling) as errors:
        short = coupling(x)[0]
        coupling.eval()
        exact = coupling(x)[0]
    assert errors.calls == 2
    assert (short - exact).abs().max() / exact.abs().max() <= errors.largest
    assert "bound_entries" not in vars(coupling)


def test_a_checkpoint_that_was_altered_fails(make_subject, monkeypatch):
    assert only(check_checkpoint(make_subject())).verdict == "ok"
    load = TrainingState.load

    def altered(*arguments):
        state, header = load(*arguments)
        next(state.flow.parameters()).data.mul_(1.01)
        return state, header

    monkeypatch.setattr(TrainingState, "load", altered)
    assert only(check_checkpoint(make_subject())).verdict == "FAILED"


def test_a_checkpoint_without_moments_fails(make_subject, monkeypatch):
    load = TrainingState.load

    def altered(*arguments):
        state, header = load(*arguments)
        state.optimizer.state.clear()
        return state, header

    monkeypatch.setattr(TrainingState, "load", altered)
    assert only(check_checkpoint(make_subject())).verdict == "FAILED"


def test_a_step_that_finds_no_memory_fails(make_subject, monkeypatch):
    assert only(check_memory(make_subject())).text.startswith("mef on digits, batches of 8 and 6: loss")

    def step(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(nfpi.checks.steps.Trainer, "step", step)
    line = only(check_memory(make_subject()))
    assert line.verdict == "FAILED"
    assert "a smaller training.batch_size" in line.text


def test_the_memory_of_a_step_is_measured_without_the_trainer_of_other_checks(make_subject, monkeypatch):
    one = make_subject()
    other, found = weakref.ref(one.trained), []
    monkeypatch.setattr(nfpi.checks.steps.Trainer, "step", lambda *_: found.append(other()) or torch.tensor(1.0))
    assert only(check_memory(one)).verdict == "ok"
    assert found == [None, None]


def test_a_loss_that_is_not_finite_fails(make_subject, monkeypatch):
    monkeypatch.setattr(nfpi.checks.steps.Trainer, "step", lambda *_: torch.tensor(torch.nan))
    assert only(check_memory(make_subject())).verdict == "FAILED"

    def diverge(*_):
        raise TrainingDiverged("the loss is not finite by step 2", 2, "loss")

    monkeypatch.setattr(nfpi.checks.steps.Trainer, "step", diverge)
    line = only(check_memory(make_subject()))
    assert (line.verdict, line.text.startswith("mef on digits: ")) == ("FAILED", True)


def test_the_hours_of_a_preset_follow_from_the_time_of_a_step(make_subject, resolve_demo):
    one = make_subject()
    (workload,) = one.workloads
    one.seconds[workload.name] = 3600.0
    assert (workload.count, workload.steps_per_epoch) == (1150, 144)
    hours = 144 * (workload.training.epochs - 1)
    assert f"train_flow {hours:.3g} h for each of {workload.runs} runs" in next(check_hours(one)).text


def test_the_hours_of_a_stage_are_its_batches_at_their_measured_speed(make_subject):
    """By hand: runs, epochs and images of preset demo, at an hour an image or a step."""
    one = make_subject()
    runs, epochs = one.main.runs, one.main.training.epochs
    classifiers = one.config.for_dataset("digits").classifiers
    assert compute_stage_hours(one)[0] == {}
    one.seconds[one.main.name] = 3600.0
    one.per_image = {("flow_inverse", "mef", "digits"): 3600.0, ("flow_forward", "mef", "digits"): 0.0}
    one.per_image |= {("classifier_step", name, "digits"): 3600.0 for name in ("swin", "eva02")}
    hours, unknown = compute_stage_hours(one)
    assert unknown == {"train_classifier: resnet18", "train_classifier: eva02_pretrained"}
    assert hours["train_flow: mef"] == pytest.approx(runs * (epochs - 1) * 144)
    nfa = one.config.for_dataset("digits").nfa
    assert hours["augment"] == -(-nfa.variants * 1150 // nfa.batch_size) * nfa.batch_size
    swin = classifiers["swin"]
    steps = swin.epochs * -(-swin.repeats * 1150 // swin.batch_size)
    scored = -(-(288 + 359) // swin.batch_size)
    assert hours["train_classifier: swin"] == pytest.approx(4 * swin.batch_size * (steps + scored / 3))
    one.workloads = [replace(one.main, sizes=replace(one.main.sizes, train=2 * 1150))]
    steps = swin.epochs * -(-swin.repeats * 2 * 1150 // swin.batch_size)
    assert compute_stage_hours(one)[0]["train_classifier: swin"] == pytest.approx(
        4 * swin.batch_size * (steps + scored / 3)
    )
    one.workloads = [replace(one.main, sizes=None)]
    assert compute_stage_hours(one)[0] == {}


def test_the_hours_on_a_prepared_image_folder_are_those_of_its_images_and_classes(
    make_subject, resolve_demo, make_images
):
    settings = {"datasets": {"digits": {"source": "imagefolder", "folder": "x"}}}
    folder = resolve_demo(**settings).results / "demo/digits/splits"
    for split, per_class in {"train": 20, "validation": 5, "test": 4}.items():
        images = make_images(classes=3, per_class=per_class)
        write_image_set(
            folder / split, images.images, images.labels, images.classes, name="digits", split=split, flip=False
        )
    one = make_subject(**settings)
    sizes = one.main.sizes
    assert (sizes.train, sizes.validation, sizes.test, sizes.classes, sizes.pixels) == (60, 15, 12, 3, (1, 8, 8))
    generation, evaluation = one.config.for_dataset("digits").generation, one.config.evaluation
    one.per_image = {("flow_inverse", "mef", "digits"): 3600.0, ("flow_forward", "mef", "digits"): 3600.0}
    hours = compute_stage_hours(one)[0]
    runs = Counter((work.stage, work.kind) for work in list_work(one.config) if work.subject == "mef")
    batches = -(-len(generation.temperatures) * generation.per_class * 3 // generation.batch_size)
    assert hours["generate"] == pytest.approx(runs["generate", "flow_inverse"] * batches * generation.batch_size)
    batches = -(-(15 + 12) // evaluation.batch_size)
    assert hours["evaluate"] == pytest.approx(runs["evaluate", "flow_forward"] * batches * evaluation.batch_size)


def test_the_longest_training_on_generated_images_is_of_one_temperature(make_subject):
    one = make_subject(generation={"temperatures": [0.9, 1.0, 1.1]})
    one.per_image["classifier_step", "resnet18", "digits"] = 1.0
    own = one.config.for_dataset("digits")
    resnet = own.classifiers["resnet18"]
    steps = resnet.epochs * -(-resnet.repeats * own.generation.per_class * 10 // resnet.batch_size)
    (line,) = [line for line in check_hours(one) if "longest" in line.text]
    hours = steps * resnet.batch_size / 3600
    assert line.text == f"train_classifier: resnet18: about {hours:.2g} h for the longest of its trainings"


def test_stages_that_no_check_measured_are_named(make_subject):
    one = make_subject()
    one.per_image["classifier_step", "swin", "digits"] = 1.0
    found = list(check_hours(one))
    assert [line.text.split(": about")[0] for line in found[:3]] == [*["train_classifier: swin"] * 2, "all stages"]
    assert (found[-1].verdict, "train_flow: mef, " in found[-1].text) == ("missing", False)
    assert all(name in found[-1].text for name in ("generate", "augment", "train_flow: mef", "resnet18"))
    expected = "wholly or partly left out, as the time or the number of images is not known: augment, evaluate, "
    assert found[-1].text.startswith(expected)


def test_both_directions_of_a_flow_are_timed(make_subject):
    one = make_subject()
    assert only(check_passes(one)).verdict == "ok"
    assert one.per_image.keys() == {("flow_forward", "mef", "digits"), ("flow_inverse", "mef", "digits")}
    assert all(seconds > 0 for seconds in one.per_image.values())


def test_without_a_number_of_images_the_data_are_missing(make_subject):
    one = make_subject()
    one.workloads = [replace(one.main, sizes=None)]
    one.seconds[one.main.name] = 1.0
    line = next(check_hours(one))
    assert line.verdict == "missing"
    assert "prepare_data" in line.text


@pytest.mark.parametrize(("short", "batches"), [(0.0, [16]), (1e9, [16, 64])])
def test_the_speed_of_a_step_is_that_of_the_whole_batch(make_subject, monkeypatch, short, batches):
    """It is projected on a CPU, or measured if it is short."""
    monkeypatch.setattr(nfpi.checks.steps, "SHORT_STEP", short)
    monkeypatch.setattr(nfpi.checks.steps, "time_action", lambda *_: 1.0)
    one = make_subject(training={"batch_size": 64})
    lines = list(check_speed(one))
    assert all(f"batch {batch}: 1e+03 ms" in line.text for batch, line in zip(batches, lines, strict=True))
    assert one.seconds == {"mef on digits": 64 / batches[-1]}


@pytest.mark.parametrize(("short", "batch"), [(0.0, 4), (1e9, 100)])
def test_a_classifier_that_is_fast_is_timed_at_its_whole_batch(make_subject, monkeypatch, short, batch):
    monkeypatch.setattr(nfpi.checks.classifiers, "SHORT_STEP", short)
    first = dict([next(iter(nfpi.checks.classifiers.find_classifiers(make_subject().config).items()))])
    monkeypatch.setattr(nfpi.checks.classifiers, "find_classifiers", lambda _: first)
    line = only(check_classifiers(make_subject()))
    assert line.text.startswith(f"resnet18, 10 classes, 8×8 pixels in 32-true, batch {batch}: ")
    assert ("whole batch of 100" in line.text) == (batch == 4)


def test_a_classifier_of_decoded_latents_has_the_size_of_the_images(make_subject):
    """It is that of the settings, as autoencoders may reduce the side by another factor than Stable Diffusion's."""
    settings = {"source": "imagefolder", "folder": "x", "vae": "y"}
    latents = make_random_images((4, 4, 4), 3, 8, latents=True)
    config = make_subject().config.for_dataset("digits").classifiers["resnet18"]
    for size, side in ((64, 64), (None, 32)):
        one = make_subject(datasets={"digits": settings | {"image_size": size}})
        one.workloads = [replace(one.main, images=latents)]
        found = nfpi.checks.classifiers._find_shape_and_classes(one, "digits", config)
        assert found == ((3, side, side), 3)


def test_a_memory_format_lasts_as_long_as_its_block(make_subject):
    found = [import_module(f"nfpi.flows.{module.name}") for module in iter_modules(nfpi.flows.__path__)]
    modules = [module for module in found if hasattr(module, "choose_convolution_format")]  # inputs and kernels alike
    before = [module.choose_convolution_format for module in modules]
    with in_format(torch.contiguous_format):
        for module in modules:
            assert module.choose_convolution_format(torch.device("cpu")) is torch.contiguous_format
    assert modules
    assert [module.choose_convolution_format for module in modules] == before


@pytest.mark.parametrize(
    ("card", "precision", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16-mixed", 989e12),
        ("NVIDIA H100 PCIe", "32-true", 51e12),
        ("NVIDIA H100 NVL", "bf16-mixed", None),  # slower than the SXM module
        ("NVIDIA H200 NVL", "tf32", None),
        ("NVIDIA A100-SXM4-80GB", "tf32", 156e12),
        ("Tesla V100-SXM2-32GB", "bf16-mixed", None),
        ("Tesla V100-SXM2-32GB", "32-true", 15.7e12),
        ("Tesla V100-PCIE-32GB", "32-true", 14e12),
        ("Tesla V100S-PCIE-32GB", "32-true", None),
        ("Tesla V100-FHHL-16GB", "32-true", None),
        ("GeForce", "32-true", None),
        ("NVIDIA RTX A1000", "tf32", None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "tf32", None),
    ],
)
def test_peaks_are_those_of_the_card(card, precision, peak):
    assert find_peak(card, precision) == peak


def test_peaks_stand_in_one_place():
    """The share of a peak that is measured, and hours that are projected, are of the same card."""
    assert all(any(card.peaks is peaks for peaks in PEAKS.values()) for card in CARDS)


def test_a_machine_that_other_processes_use_is_slow(make_subject, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(nfpi.checks.machine, "count_cores", lambda: 4)
    for load, verdict in ((1.6, "ok"), (2.6, "slow")):
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (load, 0.0, 0.0))
        line = only(check_threads(make_subject()))
        assert line.verdict == verdict
    assert "load average 3: other processes lengthen measured times; wait, or set OMP_NUM_THREADS=1" in line.text


def test_an_unknown_load_average_is_not_reported(make_subject, monkeypatch):
    def fail():
        raise OSError

    monkeypatch.setattr(os, "getloadavg", fail)
    assert only(check_threads(make_subject())).verdict == "ok"
    monkeypatch.delattr(os, "getloadavg")
    assert only(check_threads(make_subject())).verdict == "ok"


def test_more_threads_than_cores_are_slow(make_subject, monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    assert only(check_threads(make_subject())).verdict == "ok"
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr(nfpi.checks.machine, "count_cores", lambda: 4)
    line = only(check_threads(make_subject()))
    assert line.verdict == "slow"
    assert "OMP_NUM_THREADS=4" in line.text


def test_more_workers_than_cores_are_slow(make_subject, monkeypatch):
    monkeypatch.setattr(nfpi.checks.machine, "count_cores", lambda: 4)
    line = only(check_threads(make_subject(training={"workers": 8})))
    assert line.verdict == "slow"
    assert "training.workers: 3" in line.text


def test_little_shared_memory_fails(make_subject, tmp_path, monkeypatch):
    one = make_subject(training={"workers": 6, "batch_size": 100_000})
    assert only(check_shared_memory(one, tmp_path / "none")).verdict == "ok"
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(nfpi.checks.machine.shutil, "disk_usage", lambda _: usage(0, 0, 64 * 2**20))
    line = only(check_shared_memory(one, tmp_path))
    assert line.verdict == "FAILED"
    assert "--shm-size" in line.text


@pytest.mark.parametrize(("workers", "enough"), [(0, 5.0), (2, 1.2)])
def test_a_loader_that_cannot_keep_up_is_slow(make_subject, monkeypatch, workers, enough):
    """Reading before a step adds to its time; workers read beside it."""
    monkeypatch.setattr(nfpi.checks.machine, "measure_reading_rate", lambda *_: 800.0)
    monkeypatch.setattr(nfpi.checks.machine, "count_cores", lambda: 8)
    one = make_subject(training={"workers": workers})
    for needed, verdict in ((800 / enough / 1.01, "ok"), (800 / enough * 1.01, "slow")):
        one.seconds[one.main.name] = 8 / needed
        line = only(check_loader(one))
        assert line.verdict == verdict
        assert ("training.workers: " in line.text) == (verdict == "slow")
        assert ("adds" in line.text) == (not workers)
    one = make_subject(training={"workers": 7})
    one.seconds[one.main.name] = 1e-9
    assert "ask for more cores" in only(check_loader(one)).text


def test_reading_waits_neither_for_a_device_nor_for_batches_made_before(make_subject, monkeypatch):
    """Two workers make four batches ahead, and the first one starts them."""
    seconds, slow = iter(range(100)), iter([])

    def read(self, seed, epoch):
        for batch in range(len(self.train) // self.config.batch_size):
            events.append(batch)
            yield None, range(self.config.batch_size)

    def clock():
        events.append("clock")
        return float(next(seconds))

    events: list[object] = []
    monkeypatch.setattr(nfpi.checks.machine.TrainingData, "read", read)
    monkeypatch.setattr(nfpi.checks.machine.TrainingData, "stream", lambda *_: slow)
    monkeypatch.setattr(nfpi.checks.machine.time, "perf_counter", clock)
    assert measure_reading_rate(make_subject(), 2) == 8 * 8
    assert events == [0, 1, 2, 3, 4, "clock", 5, 6, 7, 8, 9, 10, 11, 12, "clock"]


def test_a_classifier_whose_loss_is_not_finite_fails(make_subject, monkeypatch):
    first = dict([next(iter(nfpi.checks.classifiers.find_classifiers(make_subject().config).items()))])
    monkeypatch.setattr(nfpi.checks.classifiers, "find_classifiers", lambda _: first)
    monkeypatch.setattr(nfpi.checks.classifiers, "SHORT_STEP", 0.0)
    one = make_subject()
    assert only(check_classifiers(one)).verdict == "ok"
    assert one.per_image.keys() == {("classifier_step", "resnet18", "digits")}
    monkeypatch.setattr("torch.nn.functional.cross_entropy", lambda logits, *_, **__: logits.sum() * torch.nan)
    line = only(check_classifiers(make_subject()))
    assert line.verdict == "FAILED"
    assert line.text.startswith("resnet18, batch 4: ")


def test_data_that_are_not_prepared_are_missing(make_subject, resolve_demo, make_images):
    assert only(check_data(make_subject())).verdict == "missing"
    found = resolve_demo()
    images = make_images(classes=10)
    write_image_set(
        found.results / "demo/digits/splits/train",
        images.images,
        images.labels,
        images.classes,
        name="digits",
        flip=False,
    )
    one = make_subject()
    assert only(check_data(one)).text == "digits: 200 training images (1, 8, 8), 10 classes"
    assert one.main.count == 200


def test_a_folder_that_is_not_there_is_named(make_subject):
    line = only(check_data(make_subject(datasets={"digits": {"folder": "/not/there"}})))
    assert (line.verdict, "datasets.digits.folder: /not/there" in line.text) == ("missing", True)


def test_weights_that_are_not_there_are_missing(make_subject):
    line = only(check_weights(make_subject(classifiers={"resnet18": {"weights": "/not/there.safetensors"}})))
    assert (line.verdict, "classifiers.resnet18.weights" in line.text) == ("missing", True)


def test_weights_of_a_classifier_that_is_only_tested_or_fine_tuned_are_checked(make_subject):
    lost = {"eva02_pretrained": {"epochs": 0, "weights": "/not/there.safetensors"}}
    row = {"dataset": "digits", "classifier": "eva02", "augmentation": "standard+nfa", "lambdas": [0, 1]}
    tables = {"*": None, "tuned": {"metrics": ["top1"], "experiments": [row]}}
    none = {"figures": {"*": None}, "claims": {"*": None}}
    for one in (make_subject(classifiers=lost), make_subject(classifiers=lost, tables=tables, **none)):
        line = only(check_weights(one))
        assert (line.verdict, "classifiers.eva02_pretrained.weights" in line.text) == ("missing", True)


def test_an_autoencoder_that_is_not_there_is_missing(make_subject, tmp_path):
    settings = {"source": "imagefolder", "folder": "x", "image_size": 64, "vae": "/not/there"}
    one = make_subject(datasets={"digits": settings})
    assert one.main.images.shape == (4, 8, 8)
    assert only(check_autoencoder(one)).verdict == "missing"
    one = make_subject(datasets={"digits": settings | {"vae": str(tmp_path)}})
    assert only(check_autoencoder(one)).verdict == "FAILED"


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
@pytest.mark.parametrize("root", ["", "train"], ids=["class folders", "splits"])
def test_random_images_are_like_those_of_an_image_folder_that_is_not_prepared(
    make_subject, tmp_path, root, mode, channels
):
    for place in (root,) if not root else (root, "test"):
        for name in ("ant", "bee", "cow"):
            folder = tmp_path / "mine" / place / name
            folder.mkdir(parents=True)
            Image.new(mode, (12, 8)).save(folder / "0.png")
    one = make_subject(datasets={"digits": {"source": "imagefolder", "folder": str(tmp_path / "mine")}})
    assert (one.main.images.shape, one.main.images.num_classes, one.main.prepared) == ((channels, 8, 12), 3, False)


def test_an_account_is_named(make_subject):
    assert list(check_account(make_subject())) == []
    assert only(check_account(make_subject(cluster={}))).verdict == "missing"
    assert only(check_account(make_subject(cluster={"account": "abc@v100"}))).text.endswith("abc@v100")
    both = only(check_account(make_subject(cluster={"account": "abc@v100", "cpu_account": "abc@cpu"})))
    assert both.text == "jobs with GPUs are charged to abc@v100, others to abc@cpu"
    other = only(check_account(make_subject(cluster={"cpu_account": "abc@cpu"})))
    assert (other.verdict, other.text.endswith("your default account, others to abc@cpu")) == ("missing", True)


def test_a_data_set_of_latents_is_prepared_by_a_rule_of_its_own():
    assert compose_preparation(DatasetBlock()).endswith("prepare_data")
    assert compose_preparation(DatasetBlock(vae="vae")).endswith("encode_data")


def test_an_image_folder_is_not_downloaded(make_subject):
    line = only(check_data(make_subject(datasets={"digits": {"source": "imagefolder"}})))
    assert line.text.endswith("datasets.digits.folder: not set")


def test_steps_that_are_alike_are_measured_once(resolve_demo):
    found = resolve_demo(preset="paper")
    one = Subject(found.preset, found.config, find_workloads(found), torch.device("cpu"))
    alike = [workload for workload in one.workloads if workload.flow == "mef" and workload.images.shape == (3, 32, 32)]
    assert len(alike) > 2
    assert [workload for workload in one.distinct if workload in alike] == alike[:1]
    one.record_seconds(alike[0], 2.0)
    assert one.seconds == {workload.name: 2.0 for workload in alike}


def test_flows_of_a_preset_are_found_with_their_runs(resolve_demo):
    found = {workload.name: workload for workload in find_workloads(resolve_demo())}
    assert {"mef on digits", "glow on digits", "transformer on digits"} <= found.keys()
    assert found["glow on digits"].runs == 2


def test_a_step_is_timed_compiled_where_trainings_are(make_subject, monkeypatch):
    monkeypatch.setattr(nfpi.checks.steps, "choose_compiler", lambda *_: "eager")
    one = make_subject()
    lines = list(check_speed(one))
    assert [line.check for line in lines] == ["speed", "compile"]
    assert "compiled, in 32-true, batch 8" in lines[1].text


def test_compiled_and_uncompiled_steps_are_compared_at_one_batch_size(make_subject, monkeypatch):
    monkeypatch.setattr(nfpi.checks.steps, "choose_compiler", lambda *_: "eager")
    monkeypatch.setattr(nfpi.checks.steps, "time_action", lambda *_: 1.0)
    monkeypatch.setattr(nfpi.checks.steps, "SHORT_STEP", 1e9)
    *_, line = check_speed(make_subject(training={"batch_size": 64}))
    assert "compiled, in 32-true, batch 64: 1e+03 ms, 1.00 × as fast as uncompiled" in line.text


@pytest.mark.parametrize(("workers", "batches"), [(0, 8), (1, 8), (2, 8), (3, 9), (4, 8), (5, 10)])
def test_reading_is_timed_over_whole_rounds_of_the_workers(make_subject, monkeypatch, workers, batches):
    """They make batches in step, so a part of a round takes as long as a whole one."""

    def read(self, seed, epoch):
        return ((None, range(1)) for _ in range(len(self.train) // self.config.batch_size))

    seconds = iter([0.0, 1.0])
    monkeypatch.setattr(nfpi.checks.machine.TrainingData, "read", read)
    monkeypatch.setattr(nfpi.checks.machine.time, "perf_counter", lambda: next(seconds))
    assert measure_reading_rate(make_subject(), workers) == batches
