"""The four questions of `nfpi check-device`, each answered by a function."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from nfpi.checks.batches import Subject, release_memory
from nfpi.config.resolution import Resolved
from nfpi.runtime.allocation import DeviceError, uses_cpu_on_purpose
from nfpi.runtime.device import count_visible_gpus, describe_device, make_device
from nfpi.runtime.faults import describe_fault, format_error
from nfpi.runtime.signals import Interrupted

_FULL_MEMORY = 0.9
"""fraction of a card's memory above which a training may run out of memory"""

Verdict = Literal["ok", "slow", "missing", "FAILED"]


@dataclass(frozen=True)
class Line:
    """The result of a check.

    Attributes:
        check: what was checked.
        verdict: ok; slow: it works, and `text` says what to set; missing: data or times that are not there, and `text`
            says which; FAILED: a training would fail, and `text` says what to do, if that is known.
        text: what was found, with its numbers.
    """

    check: str
    verdict: Verdict
    text: str


def judge(check: str, is_ok: bool, text: str, remedy: str, otherwise: Verdict = "FAILED") -> Line:
    """Return a line with the verdict ok or, with a remedy, another one."""
    return Line(check, "ok", text) if is_ok else Line(check, otherwise, f"{text}: {remedy}")


def which_gpus(subject: Subject) -> Iterator[Line]:
    """Name the GPUs, and report if they are fewer than the preset asks the cluster for."""
    text, found = f"{describe_device(subject.device)}, torch {torch.__version__}", count_visible_gpus()
    resources = subject.config.resources.get("train_flow")
    wanted = 0 if resources is None or subject.config.cluster is None else resources.gpu
    if subject.on_gpu:
        text = f"{found} × {text}, {subject.card_memory:.0f} GiB each"
    remedy = f"resources.train_flow.gpu is {wanted}: set {found}, or on a login node run `snakemake check_device`"
    is_ok = uses_cpu_on_purpose() or found >= wanted
    yield judge("device", is_ok, text, remedy, "slow" if found else "FAILED")


def are_images_known(subject: Subject) -> Iterator[Line]:
    """Report the sizes of the training images of each data set, and name those that are not known yet."""
    for dataset, images in subject.images.items():
        if images is not None:
            text = f"{dataset}: {images.train} training images {images.shape}, {images.classes} classes"
            yield Line("data", "ok", text)
        else:
            rule = "prepare_data" if subject.config.datasets[dataset].vae is None else "encode_data"
            text = f"{dataset}: not prepared (`snakemake all --until {rule}`); its trainings are left out"
            yield Line("data", "missing", text)


def does_it_fit(subject: Subject) -> Iterator[Line]:
    """Report the time of a step of each training, and compare its peak memory with that of the card."""
    for work in subject.list_distinct():
        found = subject.measure(work)
        text = f"{work.subject} on {work.dataset}, batch {work.batch}"
        if found.fault:
            yield Line("step", "FAILED", f"{text}: {found.fault}")
        elif not subject.on_gpu:  # the times of large batches are projected, and memory is not measured
            yield Line("step", "ok", f"{text}: about {1000 * found.seconds:.3g} ms")
        else:
            text += f": {1000 * found.seconds:.3g} ms, {found.memory:.1f} of {subject.card_memory:.1f} GiB"
            is_ok = found.memory < _FULL_MEMORY * subject.card_memory
            yield judge("step", is_ok, text, "set a smaller batch_size", "slow")


def how_many_hours(subject: Subject) -> Iterator[Line]:
    """Report the hours of the steps of all trainings, which take nearly all of the time, on one device of this kind."""
    hours: defaultdict[str, float] = defaultdict(float)
    longest: defaultdict[str, float] = defaultdict(float)
    for work in subject.work:
        value = work.steps * subject.measure(work).seconds / 3600
        hours[work.label] += value
        longest[work.label] = max(longest[work.label], value / work.trainings)
    for label, value in sorted(hours.items()):
        if math.isnan(value):
            yield Line("hours", "missing", f"{label}: a step failed, so its time is not known")
        else:
            text = f"{label}: about {value:.3g} h for all runs, {longest[label]:.3g} h for the longest training"
            yield Line("hours", "ok", text)
    total = sum(value for value in hours.values() if not math.isnan(value))
    yield Line("hours", "ok", f"all trainings: about {total:.3g} h, uncompiled, on one device of this kind")


Question = Callable[[Subject], Iterator[Line]]
QUESTIONS: tuple[Question, ...] = (
    which_gpus,
    are_images_known,
    does_it_fit,
    how_many_hours,
)


def answer_questions(resolved: Resolved) -> Iterator[Line]:
    """Check this machine for a preset; yield a line for each finding, as it is found.

    Raises:
        ConfigError: the preset trains no flow, or only on data sets of unknown sizes.
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
