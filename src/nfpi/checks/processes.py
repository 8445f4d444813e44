"""Check that training in two processes, on two GPUs, agrees with training in one."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from nfpi.checks.report import Line, format_error
from nfpi.checks.subject import Subject, select_first_images
from nfpi.data.store import ImageSet
from nfpi.data.writer import write_image_set
from nfpi.priors.files import load_prior
from nfpi.runs import LOG_FILE
from nfpi.runtime.devices import count_visible_gpus
from nfpi.runtime.divergence import Diverged

NFPI = (sys.executable, "-m", "nfpi.cli")
_TOLERANCE = 1e-4
_STEPS = 6
_TIMEOUT = 300


def check_processes(subject: Subject) -> Iterator[Line]:
    """Compare an epoch in one process with one in two processes, if there is a GPU for each."""
    if count_visible_gpus() < 2:
        resources = subject.config.resources.get("train_flow")
        if resources is not None and resources.gpu > 1:
            text = f"resources.train_flow.gpu is {resources.gpu}: run this check where two GPUs are visible"
            yield Line("processes", "missing", text)
        return
    yield compare_processes(subject, NFPI)


def compare_processes(subject: Subject, command: Sequence[str]) -> Line:
    """Compare bits/dim and time of an epoch in one process and in two.

    Args:
        subject: the check's subject, whose main flow is trained.
        command: command that starts `nfpi`, to which the arguments are appended.
    """
    workload = subject.main
    batch = subject.limit_batch_size(workload.training.batch_size)
    training = workload.training.model_copy(
        update={
            "batch_size": batch,
            "epochs": 2,
            "fit_after_epochs": 1,
            "compile": False,
            "precision": "32-true",
            "initialization_images": 64,
        }
    )
    flow = json.dumps({"kind": workload.description["kind"], **workload.description["settings"]})
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        steps = max(_STEPS, math.ceil(4 * workload.images.num_classes / batch))
        # whole batches: each process needs an image of the last one
        images = select_first_images(workload.images, steps * batch)
        labels = np.arange(len(images)) % images.num_classes
        _write_splits(replace(images, labels=labels), folder / "splits")
        for devices in (1, 2):
            output = folder / str(devices)
            arguments = [text for file in subject.config.extensions for text in ("--extensions", str(file))]
            arguments += ["start-flow", "--data", str(folder / "splits"), "--flow", flow]
            arguments += ["--training", training.model_dump_json(), "--devices", str(devices), "--output", str(output)]
            done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=_TIMEOUT)
            processes = f"{devices} process{'es' if devices > 1 else ''}"
            if done.returncode:
                last = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
                return Line("processes", "FAILED", f"{processes}: {format_error(RuntimeError(last[0]))}")
            try:
                load_prior(output / "prior.safetensors")
            except Diverged as fault:
                return Line("processes", "FAILED", f"{processes}: {format_error(fault)}")
            with (output / LOG_FILE).open(encoding="utf-8") as file:
                row = list(csv.DictReader(file))[-1]
            found.append((float(row["train_bits_per_dim"]), float(row["seconds"])))
    (alone, seconds), (together, seconds_together) = found
    text = (
        f"an epoch of {steps} steps: {alone:.5f} bits/dim in {seconds:.1f} s in one process, "
        f"{together:.5f} in {seconds_together:.1f} s in two"
    )
    if abs(alone - together) > _TOLERANCE * max(1.0, abs(alone)):
        text += ": expected equal bits/dim; set resources.train_flow.gpu: 1 to train in one process"
        return Line("processes", "FAILED", text)
    return Line("processes", "ok", text)


def _write_splits(images: ImageSet, folder: Path) -> None:
    """Write these images as training and as validation split."""
    for split in ("train", "validation"):
        extra = images.meta["extra"]
        write_image_set(
            folder / split, images.images, images.labels, images.classes, name="check", split=split, **extra
        )
