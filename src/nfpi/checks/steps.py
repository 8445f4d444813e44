"""Checks of training steps: memory, time in each memory format and precision, waits of the host, and saved states."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

import nfpi.flows.glow
import nfpi.flows.networks
from nfpi.benchmark.cards import find_peak
from nfpi.benchmark.measurement import synchronize
from nfpi.checks.report import Line, format_error
from nfpi.checks.subject import SHORT_STEP, Subject, Trainer, release_memory, time_action
from nfpi.checks.workloads import Workload
from nfpi.flows.image_flow import ImageFlow
from nfpi.runtime.compiler import choose_compiler
from nfpi.runtime.divergence import NOT_FINITE
from nfpi.runtime.faults import describe_exhausted_resource
from nfpi.runtime.precision import choose_convolution_format, choose_precision
from nfpi.training.state import TrainingState

_FULL_MEMORY = 0.9
"""fraction of a card's memory above which a training may run out of memory"""
_WORTHWHILE = 1.1
"""speed-up above which another setting is recommended"""
_FORMATS = {"channels last": torch.channels_last, "channels first": torch.contiguous_format}


def check_memory(subject: Subject) -> Iterator[Line]:
    """Check memory and loss of a step of each workload, for a full batch and for an epoch's smaller last batch."""
    subject.discard_trained()  # its memory would be measured too
    for workload in subject.distinct:
        batch = subject.limit_batch_size(workload.training.batch_size)
        last = (workload.count or 0) % workload.training.batch_size
        last = min(last, batch - 1) if last else batch // 2 + 1
        trainer = None  # so that the previous trainer is released, even if its step failed
        release_memory()
        try:
            trainer = Trainer.new(workload, batch)
            losses = [trainer.step(*trainer.make_batch(size)).item() for size in (batch, last)]
        except (RuntimeError, *NOT_FINITE) as error:
            exhausted = describe_exhausted_resource(error, "train-flow", "training.batch_size")
            yield Line("step", "FAILED", f"{workload.name}: {exhausted or format_error(error)}")
            continue
        text = f"{workload.name}, batches of {batch} and {last}: loss {losses[0]:.5g} and {losses[1]:.5g}"
        if not all(map(math.isfinite, losses)):
            yield Line("step", "FAILED", f"{text}: not finite; set a smaller training.learning_rate")
        elif not subject.on_gpu:
            yield Line("step", "ok", f"{text}; not checked without a GPU: memory at the full batch size")
        else:
            yield _judge_memory(workload, text)


def _judge_memory(workload: Workload, text: str) -> Line:
    used = torch.cuda.max_memory_reserved() / 2**30
    card = torch.cuda.get_device_properties(0).total_memory / 2**30
    text = f"{text}; peak memory {used:.1f} of {card:.1f} GiB"
    if used < _FULL_MEMORY * card:
        return Line("step", "ok", text)
    return Line("step", "slow", f"{text}: nearly full; set training.batch_size below {workload.training.batch_size}")


def check_speed(subject: Subject) -> Iterator[Line]:
    """Time the steps of each workload in each training precision, those of the main workload in both memory formats.

    On a CPU, only float32 and the precision of the workload are timed.
    """
    for workload in subject.distinct:
        batch = subject.limit_batch_size(workload.training.batch_size)
        chosen = choose_precision(workload.training.precision, subject.device)
        seconds: dict[str, float] = {}
        release_memory()
        start = Trainer.new(workload, batch, "32-true").state.flow
        for precision in _list_precisions(subject.device, chosen):
            try:
                line, seconds[precision] = _time_steps(subject, workload, precision, batch, start)
            except RuntimeError as error:
                if precision == chosen or describe_exhausted_resource(error, "train-flow") is None:
                    raise
                line = Line(
                    "speed", "ok", f"{workload.name} in {precision}, batch {batch}: does not fit into the memory"
                )
            yield line
            release_memory()
        full_batch = workload.training.batch_size
        full_seconds = seconds[chosen] * full_batch / batch
        if batch < full_batch and full_seconds < SHORT_STEP:
            batch = full_batch
            line, full_seconds = _time_steps(subject, workload, chosen, batch, start)
            yield line
        subject.record_seconds(workload, full_seconds)
        best = min(seconds, key=lambda precision: seconds[precision])
        if seconds[best] * _WORTHWHILE < seconds[chosen]:
            faster = f"{best} is {seconds[chosen] / seconds[best]:.1f} × as fast as {chosen}"
            yield Line("speed", "slow", f"{workload.name}: {faster}; set training.precision: {best}")
        yield from _time_compiled_steps(subject, workload, chosen, batch, start)


def _time_steps(
    subject: Subject, workload: Workload, precision: str, batch: int, start: ImageFlow
) -> tuple[Line, float]:
    """Time steps in one precision; return the report line, and seconds per step in the format that trainings use."""
    trainer = Trainer.new(workload, batch, precision, start)
    step = partial(trainer.step, *trainer.make_batch())
    own = _find_own_format(trainer)
    times = {}
    for name, memory_format in _FORMATS.items():
        if name == own or workload is subject.main:
            with in_format(memory_format):
                times[name] = time_action(step, subject.device)
    with FlopCounterMode(display=False) as counter:
        step()
    flops = counter.get_total_flops()
    each = ", ".join(f"{1000 * seconds:.3g} ms {name}" for name, seconds in times.items())
    text = f"{workload.name} in {precision}, batch {batch}: {each}; {flops / 1e9 / times[own]:.0f} GFLOP/s"
    peak = find_peak(torch.cuda.get_device_name(subject.device), precision) if subject.on_gpu else None
    if peak is not None:
        text += f", {100 * flops / times[own] / peak:.0f} % of the card's peak"
    elif not subject.on_gpu:
        text += "; not checked without a GPU: share of a card's peak, other precisions"
    if subject.on_gpu and times[own] > _WORTHWHILE * min(times.values()):
        return Line("speed", "slow", f"{text}; the other memory format is faster here: please report it"), times[own]
    return Line("speed", "ok", text), times[own]


def _time_compiled_steps(
    subject: Subject, workload: Workload, precision: str, batch: int, start: ImageFlow
) -> Iterator[Line]:
    """Time compiled steps of the main workload, if its trainings are compiled.

    The batch size should be the one at which the recorded time of uncompiled steps was measured.
    """
    compiler = choose_compiler(workload.training.compile, subject.device)
    if compiler is None or workload is not subject.main:
        return
    trainer = Trainer.new(workload, batch, precision, start, compiler)
    step = partial(trainer.step, *trainer.make_batch())
    began = time.perf_counter()
    step()
    synchronize(subject.device)
    first = time.perf_counter() - began
    seconds = time_action(step, subject.device)
    full_seconds = seconds * workload.training.batch_size / batch
    eager = subject.seconds[workload.name]
    subject.record_seconds(workload, full_seconds)
    text = (
        f"{workload.name} compiled, in {precision}, batch {batch}: {1000 * seconds:.3g} ms, "
        f"{eager / full_seconds:.2f} × as fast as uncompiled; {first:.0f} s for the first step"
    )
    if full_seconds > eager:
        yield Line("compile", "slow", f"{text}: set training.compile: false")
    else:
        yield Line("compile", "ok", text)


def _list_precisions(device: torch.device, chosen: str) -> list[str]:
    found = []
    for precision in ("32-true", "tf32", "bf16-mixed"):
        if device.type == "cpu" and precision != "32-true" and precision != chosen:
            continue  # emulated on most CPUs
        try:
            found.append(choose_precision(precision, device))
        except ValueError:
            continue
    return found


def _find_own_format(trainer: Trainer) -> str:
    """Return the name of the memory format that trainings use in the trainer's precision."""
    kind = trainer.device.device.type
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = trainer.device.precision == "tf32"
    try:
        with torch.autocast(kind, torch.bfloat16, enabled=trainer.device.precision == "bf16-mixed"):
            chosen = choose_convolution_format(trainer.device.device)
    finally:
        torch.backends.cudnn.allow_tf32 = before
    return next(name for name, one in _FORMATS.items() if one == chosen)


@contextmanager
def in_format(memory_format: torch.memory_format) -> Iterator[None]:
    """Use this memory format for the networks of couplings within the `with` block, on any device."""
    modules: tuple[Any, ...] = (nfpi.flows.networks, nfpi.flows.glow)
    before = [module.choose_convolution_format for module in modules]
    try:
        for module in modules:
            module.choose_convolution_format = lambda device: memory_format
        yield
    finally:
        for module, own in zip(modules, before, strict=True):
            module.choose_convolution_format = own


def check_synchronisations(subject: Subject) -> Iterator[Line]:
    """Check that the host never waits for the GPU in a step."""
    if not subject.on_gpu:
        yield Line("host", "missing", "not checked without a GPU: whether a step waits for it")
        return
    trainer = subject.trained
    x, labels = trainer.make_batch()
    for _ in range(2):
        trainer.step(x, labels)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(5):
            trainer.step(x, labels)
    except RuntimeError as error:
        yield Line("host", "slow", f"a step waits for the GPU ({format_error(error)[:120]}): please report it")
    else:
        yield Line("host", "ok", "5 steps in which the host does not wait for the GPU")
    finally:
        torch.cuda.set_sync_debug_mode("default")


def check_checkpoint(subject: Subject) -> Iterator[Line]:
    """Save and load a training state, and compare the losses of the next two steps with and without reloading."""
    trainer = subject.trained
    x, labels = trainer.make_batch()
    trainer.step(x, labels)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        trainer.state.save(path, {})
        size = path.stat().st_size / 2**20
        state, _ = TrainingState.load(path, trainer.config, 1, trainer.device.device)
    restored = Trainer(trainer.workload, trainer.config, trainer.device, state, trainer.prior)
    losses = [[one.step(x, labels).item() for _ in range(2)] for one in (trainer, restored)]
    text = f"{size:.0f} MiB; losses of the next two steps {losses[0]}, after reloading {losses[1]}"
    allowed = 0.0 if subject.device.type == "cpu" else 1e-3
    if all(abs(a - b) <= allowed * max(1.0, abs(a)) for a, b in zip(*losses, strict=True)):  # false for NaN
        yield Line("checkpoint", "ok", text)
    else:
        yield Line("checkpoint", "FAILED", f"{text}: expected the same; please report it")
