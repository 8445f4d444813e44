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
from nfpi.checks.subject import SEED, Subject, select_first_images
from nfpi.data.loader import START_METHOD
from nfpi.training.batches import TrainingData

_SHARED_MEMORY = Path("/dev/shm")
_BATCHES_AHEAD = 2
"""batches prefetched by each worker, torch's default"""
_MARGIN_WITH_WORKERS, _MARGIN_WITHOUT_WORKERS = 1.2, 5.0
"""Smallest sufficient ratio of the reading rate to the rate that the steps need, with and without workers."""
_BATCHES = 8


def count_cores() -> int:
    """Return how many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def read_load_average() -> int:
    """Return how many processes ran at once on this machine in the last minute, on average; 0 if unknown."""
    try:
        return round(os.getloadavg()[0])
    except (AttributeError, OSError):  # not on Windows, nor where /proc/loadavg is hidden
        return 0


def check_threads(subject: Subject) -> Iterator[Line]:
    """Compare threads and worker processes with the cores of this job, and with the other processes of the machine.

    A thread that shares its core with another process keeps all other threads waiting at the end of each operation.
    On two cores, one of them busy, steps with two threads took 100 times as long as on two idle cores.
    """
    threads, workers, found = torch.get_num_threads(), subject.main.training.workers, count_cores()
    machine, load = os.cpu_count() or 1, read_load_average()
    text = f"{found} cores, {threads} threads, {workers} workers that start by {START_METHOD}"
    if threads > found:
        yield Line("threads", "slow", f"{text}: set OMP_NUM_THREADS={found}")
    elif workers > found:
        yield Line("threads", "slow", f"{text}: set training.workers: {max(found - 1, 0)}, or ask for more cores")
    elif load + threads > machine:
        remedy = f"wait, or set OMP_NUM_THREADS={max(machine - load, 1)}"
        yield Line("threads", "slow", f"{text}, load average {load}: other processes lengthen measured times; {remedy}")
    else:
        yield Line("threads", "ok", text)


def check_shared_memory(subject: Subject, folder: Path = _SHARED_MEMORY) -> Iterator[Line]:
    """Compare the free space in /dev/shm with the size of the batches that workers put there."""
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
            "shared memory", "FAILED", f"{text}: give the container more (docker run --shm-size), or use fewer workers"
        )


def check_loader(subject: Subject) -> Iterator[Line]:
    """Compare the images per second that are read and augmented with those that the steps use.

    Neither rate includes waiting: batches are read without steps, and steps were timed with a batch in memory.
    """
    workload = subject.main
    workers = min(workload.training.workers, count_cores())
    rate = measure_reading_rate(subject, workers)
    seconds = subject.seconds.get(workload.name)
    text = f"{workload.name}: {rate:.0f} images/s by {workers} workers" + (
        "" if workload.prepared else ", random images"
    )
    if seconds is None:
        yield Line("loader", "ok", text)
        return
    need = workload.training.batch_size / seconds
    text += f", {need:.0f} needed"
    if not workers:
        text += f"; reading before each step adds {100 * need / rate:.1f} % to its time"
    if rate >= (_MARGIN_WITH_WORKERS if workers else _MARGIN_WITHOUT_WORKERS) * need:
        yield Line("loader", "ok", text)
        return
    wanted, most = int(max(1, workers) * _MARGIN_WITH_WORKERS * need / rate) + 1, max(1, count_cores() - 1)
    advice = f"set training.workers: {min(wanted, most)}" if workers < most else "ask for more cores, and add workers"
    yield Line("loader", "slow", f"{text}: {advice}")


def measure_reading_rate(subject: Subject, workers: int) -> float:
    """Measure the images per second that are read and augmented, on the CPU, without training steps.

    As many batches are read before the timing starts as the workers keep ready, so that their prefetching changes no
    rate.
    """
    workload = subject.main
    batch, ahead = subject.limit_batch_size(workload.training.batch_size), 1 + _BATCHES_AHEAD * workers
    together = max(1, workers)
    timed = together * max(2, -(-_BATCHES // together))  # so that all workers are busy until the last batches
    update = {"batch_size": batch, "workers": workers}
    config = workload.training.model_copy(update=update)
    data = TrainingData(select_first_images(workload.images, (ahead + timed) * batch), None, config, subject.device)
    with closing(data):
        stream = data.read(SEED, 0)
        for _ in range(ahead):
            next(stream)
        began = time.perf_counter()
        images = sum(len(labels) for _, labels in stream)
        return images / (time.perf_counter() - began)
