"""Checks of data loading: threads, worker processes, shared memory, and images per second."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import torch

from nfpi.checks.report import Line
from nfpi.checks.subject import SEED, Subject, Trainer, synchronize
from nfpi.data.loader import START_METHOD

_SHARED = Path("/dev/shm")
_BATCHES_AHEAD = 2
"""batches prefetched by each worker, torch's default"""
_MARGIN = 1.2
_BATCHES = 8


def cores() -> int:
    """Return how many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def check_threads(subject: Subject) -> Iterator[Line]:
    """Compare threads and worker processes with the cores of this job."""
    threads, workers, found = torch.get_num_threads(), subject.main.training.workers, cores()
    text = f"{found} cores, {threads} threads, {workers} workers that start by {START_METHOD}"
    if threads > found:
        yield Line("threads", "slow", f"{text}: set OMP_NUM_THREADS={found}")
    elif workers > found:
        yield Line("threads", "slow", f"{text}: set training.workers: {max(found - 1, 0)}, or ask for more threads")
    else:
        yield Line("threads", "ok", text)


def check_shared_memory(subject: Subject, folder: Path = _SHARED) -> Iterator[Line]:
    """Compare /dev/shm with the batches that workers put there."""
    training, images = subject.main.training, subject.main.images
    size = training.batch_size * images.images[:1].nbytes
    needed = training.workers * (_BATCHES_AHEAD + 1) * size / 2**20
    if not folder.is_dir():
        yield Line("shared memory", "ok", f"no {folder} on this system")
        return
    free = shutil.disk_usage(folder).free / 2**20
    text = f"{needed:.0f} MiB for the batches of {training.workers} workers, {free:.0f} MiB free in {folder}"
    if needed <= free:
        yield Line("shared memory", "ok", text)
    else:
        yield Line(
            "shared memory", "FAILED", f"{text}: more for the container (docker run --shm-size), or fewer workers"
        )


def check_loader(subject: Subject) -> Iterator[Line]:
    """Compare the images per second that are read and augmented with those that the steps use."""
    workload = subject.main
    trainer = Trainer.new(workload, subject.batch(workload.training.batch_size))
    workers = min(workload.training.workers, cores())
    data = trainer.batches(_BATCHES + 1, workers)
    with closing(data):
        stream = data.stream(SEED, 0)
        next(stream)  # the workers have started
        began = time.perf_counter()
        images = sum(len(labels) for _, labels in stream)
        synchronize(subject.device)
        rate = images / (time.perf_counter() - began)
    seconds = subject.seconds.get(workload.name)
    text = f"{workload.name}: {rate:.0f} images/s by {workers} workers" + (
        "" if workload.prepared else ", random images"
    )
    if seconds is None:
        yield Line("loader", "ok", text)
        return
    need = workload.training.batch_size / seconds
    text += f", {need:.0f} needed"
    if rate >= _MARGIN * need or (not workers and not subject.on_gpu and rate >= need):
        yield Line("loader", "ok", text)
    else:
        more = max(1, workers) * _MARGIN * need / rate
        yield Line("loader", "slow", f"{text}: set training.workers: {min(int(more) + 1, max(1, cores() - 1))}")
