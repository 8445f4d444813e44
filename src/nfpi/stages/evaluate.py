"""Run `nfpi evaluate`: measure a trained flow."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from nfpi.config import Split
from nfpi.config.metrics import VALIDATION_PREFIX, list_computed_metrics
from nfpi.data.store import MAY_BE_EMPTY, read_image_set
from nfpi.evaluation import FlowScores, evaluate_flow
from nfpi.model.trained import TrainedFlow
from nfpi.results.metrics.measures import compute_metrics, per_class_accuracy
from nfpi.results.recorded.logs import read_column
from nfpi.results.recorded.predictions import write_predictions
from nfpi.results.recorded.records import write_metrics
from nfpi.runs import Run
from nfpi.runtime.devices import describe_device, make_device
from nfpi.runtime.files import written_together
from nfpi.sampling import balanced_labels, sample_images
from nfpi.stages.options import Evaluate

logger = logging.getLogger(__name__)


def evaluate(stage: Evaluate) -> None:
    """Evaluate on the test split and, unless it is empty, the validation split; and time sampling."""
    began = time.monotonic()
    run = Run.from_json(stage.run) if stage.run is not None else None
    model = TrainedFlow.read(stage.model)
    device = make_device().device
    flow = model.flow.to(device)
    splits: tuple[Split, ...] = ("validation", "test")
    scores: dict[Split, FlowScores] = {
        split: evaluate_flow(
            flow,
            model.prior,
            images,
            batch_size=stage.evaluation.batch_size,
            seed=model.seed,
            domain=model.domain,
            device=device,
        )
        for split in splits
        if len(images := read_image_set(stage.data / split)) or split != MAY_BE_EMPTY
    }
    test, validation = scores["test"], scores.get("validation")
    metrics = {
        **_measure(test, stage.metrics),
        "parameters": sum(parameter.numel() for parameter in flow.parameters()) / 1e6,
        "seconds_per_1000_samples": _measure_sampling_time(model, stage.evaluation.timed_samples, device),
        **_read_training_time(stage.history),
        **_get_fit_iterations(model.config),
    }
    if validation is not None:
        metrics |= {f"{VALIDATION_PREFIX}{name}": value for name, value in _measure(validation, stage.metrics).items()}
    with written_together():
        write_predictions(stage.get_path("predictions"), test.labels, test.log_prob)
        write_metrics(
            stage.get_path("metrics"),
            metrics,
            run=run,
            n=test.n,
            seed=model.seed,
            settings={"flow": model.flow.description, **model.config},
            device=describe_device(device),
            seconds=time.monotonic() - began,
            per_class_accuracy=per_class_accuracy(test.log_prob, test.labels).tolist(),
        )
    logger.info("NF-Acc %.2f %%, %.4f bits/dim on %d test images", test.nf_acc, test.bits_per_dim, test.n)


def _measure(scores: FlowScores, names: Iterable[str]) -> dict[str, float]:
    """Compute the metrics of one split."""
    computed = compute_metrics(list_computed_metrics(names), scores.log_prob, scores.labels)
    return {"nf_acc": scores.nf_acc, "nf_top5": scores.nf_top5, "bits_per_dim": scores.bits_per_dim, **computed}


def _measure_sampling_time(model: TrainedFlow, count: int, device: torch.device) -> float:
    """Return the wall-clock seconds per 1000 samples, measured on a batch of `count` after a warm-up batch."""
    labels = balanced_labels(model.prior.num_classes, -(-count // model.prior.num_classes))[:count]
    seconds = 0.0
    for _ in range(2):
        began = time.monotonic()
        for _ in sample_images(
            model.flow,
            model.prior,
            labels,
            temperature=1.0,
            seed=model.seed,
            batch_size=len(labels),
            domain=model.domain,
            device=device,
        ):
            pass
        seconds = time.monotonic() - began
    return 1000 * seconds / len(labels)


def _get_fit_iterations(config: Mapping[str, Any]) -> dict[str, float]:
    """Return the iterations of the fit of the prior, if the model records one."""
    prior = config.get("prior")
    iterations = prior.get("iterations") if isinstance(prior, Mapping) else None
    return {} if iterations is None else {"fit_iterations": float(iterations)}


def _read_training_time(history: Path | None) -> dict[str, Any]:
    """Return the hours of the training and the median time per epoch, if its log is given."""
    if history is None:
        return {}
    seconds = read_column(history, "seconds")  # its cells are empty for epochs of the initial state
    if not seconds:
        return {}
    return {"hours": sum(seconds) / 3600, "seconds_per_epoch": statistics.median(seconds)}
