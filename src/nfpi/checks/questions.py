"""The eight questions of `nfpi check-device`, each answered by a function."""

from __future__ import annotations

import copy
import math
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from nfpi.checks.batches import SEED, Trial, make_random_images, release_memory
from nfpi.checks.subject import Subject
from nfpi.config.resolution import Resolved
from nfpi.flows.bijection import ImageFlow
from nfpi.runtime.allocation import DeviceError, uses_cpu_on_purpose
from nfpi.runtime.device import count_visible_gpus, describe_device, make_device
from nfpi.runtime.faults import describe_fault, format_error
from nfpi.runtime.signals import Interrupted
from nfpi.training.batches import TrainingData
from nfpi.training.state import TrainingState

_FLOAT32_TOLERANCE = 1e-5
"""largest accepted relative error of a matrix product or convolution in float32; that of TF32 is about 3e-4"""
_FLOW_TOLERANCE = 1e-4
"""largest accepted relative error of a flow in float32"""
_COMPARED_IMAGES = 4
_FULL_MEMORY = 0.9
"""fraction of a card's memory above which a training may run out of memory"""
_MARGIN_WITH_WORKERS, _MARGIN_WITHOUT_WORKERS = 1.2, 5.0
"""smallest sufficient ratio of the reading rate to the rate that the steps need, with and without workers"""
_BATCHES_AHEAD, _TIMED_BATCHES = 2, 8
"""batches that each worker keeps ready (torch's default), and the smallest number of batches that are timed"""

Verdict = Literal["ok", "slow", "missing", "FAILED"]


@dataclass(frozen=True)
class Line:
    """The result of a check.

    Attributes:
        check: what was checked.
        verdict: ok; slow: it works, and `text` says what to set; missing: data, weights or times that are not there,
            and `text` says which; FAILED: a training would fail, and `text` says what to do, if that is known.
        text: what was found, with its numbers.
    """

    check: str
    verdict: Verdict
    text: str


def judge(check: str, is_ok: bool, text: str, remedy: str, otherwise: Verdict = "FAILED") -> Line:
    """Return a line with the verdict ok or, with a remedy, another one."""
    return Line(check, "ok", text) if is_ok else Line(check, otherwise, f"{text}: {remedy}")


def judge_errors(check: str, errors: Mapping[str, float], limit: float, text: str, remedy: str) -> Line:
    """Return a line with errors, none of which may be larger than a limit, or NaN."""
    text = f"{text}: {', '.join(f'{name} {error:.1g}' for name, error in errors.items())}"
    is_ok = all(error <= limit for error in errors.values())  # false for NaN
    return judge(check, is_ok, text, f"expected at most {limit:g}: {remedy}")


def which_gpus(subject: Subject) -> Iterator[Line]:
    """Name the GPUs, and report if they are fewer than the preset asks the cluster for."""
    text, found = f"{describe_device(subject.device)}, torch {torch.__version__}", count_visible_gpus()
    resources = subject.resolved.config.resources.get("train_flow")
    wanted = 0 if resources is None or subject.resolved.config.cluster is None else resources.gpu
    if subject.on_gpu:
        text = f"{found} × {text}, {subject.card_memory:.0f} GiB each"
    remedy = f"resources.train_flow.gpu is {wanted}: set {found}, or on a login node run `snakemake check_device`"
    is_ok = uses_cpu_on_purpose() or found >= wanted
    yield judge("device", is_ok, text, remedy, "slow" if found else "FAILED")


def does_it_build(subject: Subject) -> Iterator[Line]:
    """Compute on the device; products and convolutions in float32 must not be rounded to TF32 or less."""
    generator = torch.Generator().manual_seed(0)
    images, kernel = torch.randn(8, 64, 16, 16, generator=generator), torch.randn(64, 64, 3, 3, generator=generator)
    left, right = torch.randn(256, 512, generator=generator), torch.randn(512, 256, generator=generator)
    errors: dict[str, float] = {}
    compute: Callable[..., Tensor]
    for name, compute, a, b in (("convolution", torch.conv2d, images, kernel), ("product", torch.matmul, left, right)):
        found, exact = compute(a.to(subject.device), b.to(subject.device)), compute(a.double(), b.double())
        errors[name] = ((found.cpu().double() - exact).norm() / exact.norm()).item()
    remedy = "TF32 or less is used; unset NVIDIA_TF32_OVERRIDE and TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"
    yield judge_errors("build", errors, _FLOAT32_TOLERANCE, "relative errors in float32", remedy)


def are_weights_there(subject: Subject) -> Iterator[Line]:
    """Look for prepared data, weights of classifiers, and autoencoders."""
    config = subject.resolved.config
    for dataset in dict.fromkeys(work.dataset for work in subject.work):
        block, images = config.datasets[dataset], subject.prepared.get(dataset)
        if images is not None:
            text = f"{dataset}: {len(images)} training images {images.shape}, {images.num_classes} classes"
            yield Line("data", "ok", text)
        elif block.folder is not None and not block.folder.exists():
            yield Line("data", "missing", f"datasets.{dataset}.folder: {block.folder} is not there")
        else:
            rule = "prepare_data" if block.vae is None else "encode_data"
            text = f"{dataset}: not prepared (`snakemake all --until {rule}`, where there is internet if it downloads)"
            yield Line("data", "missing", text)
        if block.vae is not None and not block.vae.is_dir():
            yield Line("weights", "missing", f"datasets.{dataset}.vae: {block.vae} is not there")
    of_classifiers = [work for work in subject.work if work.kind.startswith("classifier")]
    names = dict.fromkeys((work.dataset, work.subject) for work in of_classifiers)
    weights = dict.fromkeys((name, config.for_dataset(dataset).classifiers[name].weights) for dataset, name in names)
    for name, file in weights:
        if file is not None and not file.is_file():
            yield Line("weights", "missing", f"classifiers.{name}.weights: {file} is not there")


def does_it_invert(subject: Subject) -> Iterator[Line]:
    """Compare the first flow on the device with float64 on the CPU: z, log-determinant and inverse."""
    trial = Trial(subject.resolved.config, subject.limit_batch(subject.main))
    for _ in range(2):
        trial.step()
    errors = compute_flow_errors(trial.state.flow, trial.x[:_COMPARED_IMAGES])
    text = f"{subject.main.subject} in float32 against float64 on the CPU"
    yield judge_errors("inverse", errors, _FLOW_TOLERANCE, text, "try another version of torch or of the driver")


def compute_flow_errors(flow: ImageFlow, x: Tensor) -> dict[str, float]:
    """Compute errors of a flow in float32 on its device, relative to the largest absolute value or 1, the larger one.

    Args:
        flow: flow on its device.
        x: (B, C, H, W), on that device.

    Returns:
        The errors of z and the log-determinant, compared with float64 on the CPU, and of inverse(z), compared with x.
    """
    flow.eval()
    exact = copy.deepcopy(flow).cpu().double()
    with torch.no_grad():
        found, (z, log_abs_det) = flow(x), exact(x.cpu().double())
        back, _ = flow.inverse(found[0])
    pairs = {"z": (found[0], z), "log-determinant": (found[1], log_abs_det), "inverse": (back, x)}
    doubles = {name: (a.cpu().double(), b.cpu().double()) for name, (a, b) in pairs.items()}
    return {name: ((a - b).abs().max() / b.abs().max().clamp(min=1)).item() for name, (a, b) in doubles.items()}


def does_it_resume(subject: Subject) -> Iterator[Line]:
    """Save and load a training state, and compare the losses of the next two steps with and without reloading."""
    trial = Trial(subject.resolved.config, subject.limit_batch(subject.main))
    trial.step()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        trial.state.save(path, {})
        size = path.stat().st_size / 2**20
        saved, _ = TrainingState.load(path, trial.config, 1, trial.device.device)
    losses = [[trial.step().mean().item() for _ in range(2)]]
    trial.use_state(saved)
    losses += [[trial.step().mean().item() for _ in range(2)]]
    text = f"{size:.0f} MiB; losses of the next two steps {losses[0]}, after reloading {losses[1]}"
    allowed = 0.0 if subject.device.type == "cpu" else 1e-3
    is_ok = all(abs(a - b) <= allowed * max(1.0, abs(a)) for a, b in zip(*losses, strict=True))  # false for NaN
    yield judge("resume", is_ok, text, "expected the same; please report it")


def does_it_fit(subject: Subject) -> Iterator[Line]:
    """Compare the peak memory of a step of each training with that of the card."""
    for work in subject.list_distinct():
        found = subject.measure(work)
        text = f"{work.subject} on {work.dataset}, batch {work.batch}"
        if found.fault:
            yield Line("memory", "FAILED", f"{text}: {found.fault}")
        elif not subject.on_gpu:
            yield Line("memory", "ok", f"{text}: a smaller step works; memory is measured only on a GPU")
        else:
            text += f": {found.memory:.1f} of {subject.card_memory:.1f} GiB"
            is_ok = found.memory < _FULL_MEMORY * subject.card_memory
            yield judge("memory", is_ok, text, "set a smaller batch_size", "slow")


def does_the_loader_keep_up(subject: Subject) -> Iterator[Line]:
    """Compare the images per second that are read and augmented with those that the steps of the first flow use."""
    work, cores = subject.main, count_cores()
    workers = min(subject.resolved.config.resolve_training(work.dataset, work.subject).workers, cores)
    rate, seconds = measure_reading_rate(subject, workers), subject.measure(work).seconds
    need = work.batch / seconds
    text = f"{work.subject} on {work.dataset}: {rate:.0f} images/s by {workers} workers, {need:.0f} needed"
    text += "" if work.dataset in subject.prepared else "; random images"
    margin = _MARGIN_WITH_WORKERS if workers else _MARGIN_WITHOUT_WORKERS
    if math.isnan(need):
        yield Line("loader", "missing", f"{text}: a step failed, so its time is not known")
    else:
        remedy = f"set training.workers to more than {workers}" if workers < cores - 1 else "ask for more cores"
        yield judge("loader", rate >= margin * need, text, remedy, "slow")


def count_cores() -> int:
    """Return how many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def measure_reading_rate(subject: Subject, workers: int) -> float:
    """Measure the images per second that are read and augmented, on the CPU, without training steps.

    As many batches are read before the timing starts as the workers keep ready, so that their prefetching changes no
    rate.
    """
    work, config = subject.limit_batch(subject.main), subject.resolved.config
    together, ahead = max(1, workers), 1 + _BATCHES_AHEAD * workers
    timed = together * max(2, -(-_TIMED_BATCHES // together))  # so that all workers are busy until the last batches
    count = (ahead + timed) * work.batch
    images = subject.prepared.get(work.dataset) or make_random_images(work.shape, work.classes, count)
    rows = torch.arange(count).numpy() % len(images)
    training = config.resolve_training(work.dataset, work.subject)
    training = training.model_copy(update={"batch_size": work.batch, "workers": workers})
    chosen = replace(images, images=images.images[rows], labels=images.labels[rows])
    with closing(TrainingData(chosen, None, training, subject.device)) as data:
        stream = data.read(SEED, 0)
        for _ in range(ahead):
            next(stream)
        began = time.perf_counter()
        read = sum(len(labels) for _, labels in stream)
        return read / (time.perf_counter() - began)


def how_many_hours(subject: Subject) -> Iterator[Line]:
    """Report the speed of each kind of batch, and the hours of each stage over all runs, on one device of this kind.

    Reading images, fits of priors and figures are not counted.
    """
    for work in subject.list_distinct("flow_step", "flow_forward", "flow_inverse", "classifier_step"):
        found = subject.measure(work)
        if not found.fault:
            text = f"{work.kind.replace('_', ' ')}, {work.subject} on {work.dataset}, batch {work.batch}"
            yield Line("speed", "ok", f"{text}: {subject.about}{1000 * found.seconds:.3g} ms")
    hours: defaultdict[str, float] = defaultdict(float)
    longest: defaultdict[str, float] = defaultdict(float)
    unknown = set()
    for work in subject.work:
        seconds = subject.estimate_seconds(work)
        if seconds is None:
            unknown.add(work.label)
            continue
        hours[work.label] += seconds / 3600
        if work.is_step:
            longest[work.label] = max(longest[work.label], seconds / 3600 / work.trainings)
    for label, value in sorted(hours.items()):
        text = f"{label}: {subject.about}{value:.3g} h for all runs"
        text += f", {longest[label]:.3g} h for the longest training" if label in longest else ""
        yield Line("hours", "ok", text)
    if hours:
        total = f"all stages: {subject.about}{sum(hours.values()):.3g} h, uncompiled, on one device of this kind"
        yield Line("hours", "ok", total)
    if unknown:
        text = "wholly or partly left out, as the time or the number of images is not known: "
        yield Line("hours", "missing", text + ", ".join(sorted(unknown)))


Question = Callable[[Subject], Iterator[Line]]
QUESTIONS: tuple[Question, ...] = (
    which_gpus,
    does_it_build,
    are_weights_there,
    does_it_invert,
    does_it_resume,
    does_it_fit,
    does_the_loader_keep_up,
    how_many_hours,
)


def answer_questions(resolved: Resolved) -> Iterator[Line]:
    """Check this machine for a preset; yield a line for each finding, as it is found.

    Raises:
        ConfigError: the preset trains no flow.
    """
    try:
        device = make_device().device
    except DeviceError as error:
        yield Line("device", "FAILED", str(error))
        return
    subject = Subject.find(resolved, device)
    for question in QUESTIONS:
        for line in answer(question, subject):
            yield line
            if (line.check, line.verdict) == ("device", "FAILED"):
                return


def answer(question: Question, subject: Subject) -> Iterator[Line]:
    """Yield the lines of a question, the last of which reports its error if it raises one."""
    try:
        with torch.random.fork_rng(devices=[]):
            yield from question(subject)
    except Interrupted:
        raise
    except Exception as error:
        text = describe_fault(error) or f"{type(error).__name__}: {format_error(error)}"
        yield Line(question.__name__.replace("_", " "), "FAILED", text)
    finally:
        release_memory()
