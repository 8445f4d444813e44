"""Projection of a preset's hours on a device, from the times that the other checks measured."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from functools import partial

import torch

from nfpi.benchmark.batches import format_stage_name
from nfpi.benchmark.work import Work, list_work
from nfpi.checks.report import Line
from nfpi.checks.subject import SHORT_STEP, Subject, Trainer, in_mode, release_memory, time_action
from nfpi.checks.workloads import compose_preparation
from nfpi.config import Resources
from nfpi.runtime.precision import full_precision

_JOBS = 5
"""number of times that a job is run under the cluster profiles, retries included"""
_PREDICTION_SHARE = 1 / 3
"""ratio of the time of a classifier's prediction to the time of a training step on the same images"""


def check_passes(subject: Subject) -> Iterator[Line]:
    """Time both directions of each flow in float32, as evaluation, sampling and augmentation compute them."""
    for workload in subject.distinct:
        release_memory()
        full = workload.training.batch_size
        # On a CPU the whole batch is timed only if its training step was short, otherwise a smaller one.
        batch = full if subject.seconds.get(workload.name, math.inf) < SHORT_STEP else subject.limit_batch_size(full)
        trainer = Trainer.new(workload, batch, "32-true")
        flow, (x, _) = trainer.state.flow, trainer.make_batch()
        with torch.no_grad(), full_precision(), in_mode(flow, training=False):
            z, _ = flow(x)
            forward, inverse = (
                time_action(partial(direction, images), subject.device) / len(x)
                for direction, images in ((flow, x), (flow.inverse, z))
            )
        for other in subject.workloads:
            if other.step == workload.step:  # the same flow, trained in the same way
                subject.per_image["flow_forward", other.flow, other.dataset] = forward
                subject.per_image["flow_inverse", other.flow, other.dataset] = inverse
        text = f"{workload.name} in float32, batch {len(x)}"
        yield Line("passes", "ok", f"{text}: {1 / forward:.3g} images/s encoded, {1 / inverse:.3g} decoded")


def check_hours(subject: Subject) -> Iterator[Line]:
    """Project the hours of each training of a flow, and of each stage of the preset, from the measured times."""
    yield from _project_trainings(subject)
    yield from _project_stages(subject)


def _project_trainings(subject: Subject) -> Iterator[Line]:
    """Yield the hours of a training of each workload, with the retries to set if those of the profiles are too few."""
    for workload in subject.workloads:
        seconds, steps = subject.seconds.get(workload.name), workload.steps_per_epoch
        if seconds is None:
            continue
        about = "" if subject.on_gpu else "about "
        if steps is None:
            yield Line(
                "hours",
                "missing",
                f"{workload.name}: {about}{seconds:.3g} s a step of {workload.training.batch_size} images; for the "
                f"number of steps, prepare the data ({compose_preparation(subject.config.datasets[workload.dataset])})",
            )
            continue
        first = workload.training.fit_after_epochs
        start, train = ((epochs * steps * seconds / 3600) for epochs in (first, workload.training.epochs - first))
        text = (
            f"{workload.name}: {steps} steps per epoch, {about}{seconds:.3g} s each: start_flow {start:.2g} h, "
            f"train_flow {train:.3g} h for each of {workload.runs} runs"
        )
        yield _judge_hours(subject, subject.config.resources.get("train_flow"), train, text)


def _judge_hours(subject: Subject, limit: Resources | None, hours: float, text: str) -> Line:
    """Return the line of a training, which advises more retries if the jobs of the cluster profiles are too short."""
    if limit is None or not subject.on_gpu or hours * 60 <= _JOBS * limit.runtime:
        return Line("hours", "ok", text)
    retries = math.ceil(hours * 60 / limit.runtime)
    text += f"; {_JOBS} jobs of {limit.runtime} minutes are not enough: set --retries {retries}"
    return Line("hours", "slow", text)


def _project_stages(subject: Subject) -> Iterator[Line]:
    """Yield the hours of each stage over the runs of the subject, and of the longest training of each classifier."""
    hours, unknown = compute_stage_hours(subject)
    about = "" if subject.on_gpu else "about "
    longest: defaultdict[str, float] = defaultdict(float)
    for work, seconds in _list_seconds(subject):
        if work.kind == "classifier_step" and seconds is not None:
            stage, value = format_stage_name(work), seconds / work.trainings / 3600
            longest[stage] = max(longest[stage], value)
    for stage, value in sorted(longest.items()):
        text = f"{stage}: {about}{value:.2g} h for the longest of its trainings"
        yield _judge_hours(subject, subject.config.resources.get("train_classifier"), value, text)
    for stage, value in hours.items():
        yield Line("hours", "ok", f"{stage}: {about}{value:.2g} h for all runs on the checked data sets and flows")
    if hours:
        yield Line("hours", "ok", f"all stages: {about}{sum(hours.values()):.3g} h, on one device of this kind")
    if unknown:
        text = "wholly or partly left out, as the time or the number of images is not known: "
        yield Line("hours", "missing", text + ", ".join(sorted(unknown)))


def compute_stage_hours(subject: Subject) -> tuple[dict[str, float], set[str]]:
    """Compute the hours of each stage of the subject's data sets and flows.

    The time of a batch is taken to be proportional to its number of images, except for the training steps of a flow,
    which are timed at their own batch size. Reading images, fits of priors and figures are not counted.

    Returns:
        hours by the name of the stage, and the names of stages with a part whose time or number of images is unknown.
    """
    hours: defaultdict[str, float] = defaultdict(float)
    unknown = set()
    for work, seconds in _list_seconds(subject):
        if seconds is None:
            unknown.add(format_stage_name(work))
        else:
            hours[format_stage_name(work)] += seconds / 3600
    return dict(sorted(hours.items())), unknown


def _list_seconds(subject: Subject) -> Iterator[tuple[Work, float | None]]:
    """Yield the work of the subject's data sets and flows, and the seconds that it takes; None: not known."""
    names = {workload.name for workload in subject.workloads}
    sizes = {workload.dataset: workload.sizes for workload in subject.workloads}
    known = {dataset: found for dataset, found in sizes.items() if found is not None}
    for work in list_work(subject.config, known):
        if work.dataset in sizes and (not work.kind.startswith("flow") or _format_workload_name(work) in names):
            yield work, _estimate_seconds(subject, work) if work.dataset in known else None


def _format_workload_name(work: Work) -> str:
    return f"{work.subject} on {work.dataset}"


def _estimate_seconds(subject: Subject, work: Work) -> float | None:
    """Return the seconds of all batches; None: not known."""
    if work.kind == "flow_step":
        step = subject.seconds.get(_format_workload_name(work))
        return None if step is None else work.batches * step
    if work.kind == "classifier_forward":
        each = subject.per_image.get(("classifier_step", work.subject, work.dataset))
        return None if each is None else work.batches * work.batch * each * _PREDICTION_SHARE
    each = subject.per_image.get((work.kind, work.subject, work.dataset))
    return None if each is None else work.batches * work.batch * each
