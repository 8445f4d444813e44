"""Check that training steps of each classifier of a preset run, at the classifier's batch size where possible."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from nfpi.benchmark.measurement import synchronize
from nfpi.benchmark.work import get_pixel_shape
from nfpi.checks.report import Line, format_error
from nfpi.checks.subject import SEED, SHORT_STEP, Subject, release_memory
from nfpi.checks.workloads import infer_shape, make_random_images
from nfpi.config import ClassifierConfig, Config
from nfpi.runtime.faults import describe_exhausted_resource

_STEPS, _STEPS_ON_CPU = 3, 1
_BATCH_ON_CPU = 4
"""batch size of the first trial on a CPU, where whole batches may take long"""


def find_used_classifiers(config: Config) -> dict[tuple[str, str], ClassifierConfig]:
    """Return the settings of each classifier of a table, and of the one that it fine-tunes, by name and data set."""
    found: dict[tuple[str, str], ClassifierConfig] = {}
    for _, experiment in config.iterate_experiments():
        known, name = config.for_dataset(experiment.dataset).classifiers, experiment.classifier
        while name is not None:
            found[name, experiment.dataset] = known[name]
            name = known[name].start_from
    return found


def find_classifiers(config: Config) -> dict[tuple[str, str], ClassifierConfig]:
    """Return the settings of each classifier that is trained for a table, by its name and its data set."""
    return {key: one for key, one in find_used_classifiers(config).items() if one.epochs}


def check_classifiers(subject: Subject) -> Iterator[Line]:
    """Train each classifier on random images for a few steps, once for each size of images and number of classes."""
    measured: dict[str, float] = {}
    for (name, dataset), config in find_classifiers(subject.config).items():
        if subject.dataset not in (None, dataset):
            continue
        shape, classes = _find_shape_and_classes(subject, dataset, config)
        key = json.dumps([name, config.model_dump(mode="json"), shape, classes])
        if key not in measured:
            release_memory()
            batch = (
                config.batch_size if subject.on_gpu else min(config.batch_size, max(_BATCH_ON_CPU, config.accumulate))
            )
            try:
                line, seconds = _time_steps(subject, name, config, batch, shape, classes)
                if batch < config.batch_size and seconds * config.batch_size / batch < SHORT_STEP:
                    batch = config.batch_size
                    line, seconds = _time_steps(subject, name, config, batch, shape, classes)
            except (RuntimeError, ValueError, OSError, ArithmeticError) as error:
                setting = f"classifiers.{name}.batch_size"
                text = describe_exhausted_resource(error, "train-classifier", setting) or format_error(error)
                line, seconds = Line("classifier", "FAILED", f"{name}, batch {batch}: {text}"), math.nan
            measured[key] = seconds / batch
            yield line
        if not math.isnan(measured[key]):
            subject.per_image["classifier_step", name, dataset] = measured[key]


def _find_shape_and_classes(
    subject: Subject, dataset: str, config: ClassifierConfig
) -> tuple[tuple[int, int, int], int]:
    """Return (C, H, W) and the number of classes of a classifier's images."""
    block = subject.config.datasets[dataset]
    known = {workload.dataset: workload.images for workload in subject.workloads}.get(dataset)
    shape, classes = (known.shape, known.num_classes) if known is not None else infer_shape(block)
    channels, *size = get_pixel_shape(block, shape)  # `shape` may be that of latents, which are decoded for classifiers
    height, width = [config.image_size] * 2 if config.image_size else size
    return (channels, height, width), classes


def _time_steps(
    subject: Subject, name: str, config: ClassifierConfig, batch: int, shape: tuple[int, int, int], classes: int
) -> tuple[Line, float]:
    """Train a few steps; return the report line and the seconds per step."""
    from nfpi.classifiers.data import ClassifierData
    from nfpi.classifiers.registry import build_classifier, get_preprocessing
    from nfpi.classifiers.training import train_classifier
    from nfpi.runtime.devices import make_device

    has_random_weights = config.weights is None and config.start_from is None and not config.pretrained
    note = "" if has_random_weights else "; its pretrained weights were not read"
    trial = config.model_copy(
        update={
            **{"weights": None, "pretrained": False, "start_from": None, "workers": 0, "batch_size": batch},
            **{"epochs": 1, "repeats": 1, "warmup_epochs": 0, "normalization": "half"},
        }
    )
    torch.manual_seed(SEED)
    model = build_classifier(trial, classes, shape[0], shape[1])
    steps = _STEPS if subject.on_gpu else _STEPS_ON_CPU
    images = make_random_images(shape, classes, steps * batch)
    empty = replace(images, images=images.images[:0], labels=np.zeros(0, np.int64))
    device = make_device(config.precision)

    def train(count: int) -> float:
        some = replace(images, images=images.images[: count * batch], labels=images.labels[: count * batch])
        data = ClassifierData(some, empty, trial, get_preprocessing(trial), trial.standard, None)
        synchronize(subject.device)
        began = time.perf_counter()
        trained = train_classifier(model, data, SEED, device)
        synchronize(subject.device)
        if not math.isfinite(trained.log[-1]["train_loss"]):
            raise ArithmeticError("the loss is not finite")
        return (time.perf_counter() - began) / count

    train(1)
    seconds = train(steps)
    text = (
        f"{name}, {classes} classes, {shape[2]}×{shape[1]} pixels in {device.precision}, batch {batch}: "
        f"{1000 * seconds:.3g} ms a step"
    )
    if subject.on_gpu:
        used = torch.cuda.max_memory_reserved() / 2**30
        text += f", peak memory {used:.1f} GiB"
    elif batch < config.batch_size:
        text += f"; memory and time at the whole batch of {config.batch_size} are measured only on a GPU"
    return Line("classifier", "ok", text + note), seconds
