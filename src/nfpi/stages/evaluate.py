"""The stage that measures a trained flow."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nfpi.config.base import Split
from nfpi.config.generation import EvaluationConfig
from nfpi.config.metrics import VALIDATION_PREFIX, list_computed_metrics
from nfpi.results.recorded.csv_files import read_column
from nfpi.results.recorded.records import write_metrics
from nfpi.runs import METRICS_FILE, MODEL_FILES, PREDICTIONS_FILE, Run
from nfpi.runtime.files import written_together
from nfpi.stages.base import Stage
from nfpi.stages.planned import Planned, Wildcards
from nfpi.stages.prepare_data import list_meta_files

if TYPE_CHECKING:
    import torch

    from nfpi.evaluation import FlowScores
    from nfpi.model.trained import TrainedFlow

logger = logging.getLogger(__name__)


class Evaluate(Stage):
    """Measure NF-Acc, top-5, ECE and bits/dim of a flow.

    Uses the validation and the test split.
    """

    command = "evaluate"
    outputs = {"metrics": METRICS_FILE, "predictions": PREDICTIONS_FILE}
    product = "metrics"
    timed = ("metrics",)
    inputs = {"data": list_meta_files("validation", "test"), "model": tuple(MODEL_FILES.values()), "history": ()}

    data: Path
    """folder of the splits"""
    model: Path
    """folder of the model"""
    history: Path | None = None
    """log.csv of its training, for the training time"""
    identity: dict[str, Any] | None = None
    """identity of the run, recorded with the metrics"""
    metrics: list[str] = []
    """names of additional metrics to compute, defined by extensions"""
    evaluation: EvaluationConfig = EvaluationConfig()

    @classmethod
    def select_options(cls, planned: Planned, wildcards: Wildcards) -> dict[str, Any]:
        """Return the options of a job except paths."""
        run = Run.from_wildcards(wildcards)
        metrics = planned.list_own_metrics(run)
        return {
            "identity": run.to_json(),
            "metrics": metrics,
            "evaluation": planned.config.for_dataset(run.dataset).evaluation,
            "code": planned.list_digests(wildcards, "flow", metrics=metrics),
        }

    def run(self) -> None:
        """Evaluate on the test split and, unless it is empty, the validation split; and time sampling."""
        from nfpi.data.store import MAY_BE_EMPTY, read_image_set
        from nfpi.evaluation import evaluate_flow
        from nfpi.model.trained import TrainedFlow
        from nfpi.results.metrics.measures import per_class_accuracy
        from nfpi.results.recorded.predictions import write_predictions
        from nfpi.runtime.device import describe_device, make_device

        began = time.monotonic()
        run = Run.from_json(self.identity) if self.identity is not None else None
        model = TrainedFlow.read(self.model)
        device = make_device().device
        flow = model.flow.to(device)
        splits: tuple[Split, ...] = ("validation", "test")
        scores: dict[Split, FlowScores] = {
            split: evaluate_flow(
                flow,
                model.prior,
                images,
                batch_size=self.evaluation.batch_size,
                seed=model.seed,
                domain=model.domain,
                device=device,
            )
            for split in splits
            if len(images := read_image_set(self.data / split)) or split != MAY_BE_EMPTY
        }
        test, validation = scores["test"], scores.get("validation")
        metrics = {
            **_measure(test, self.metrics),
            "parameters": sum(parameter.numel() for parameter in flow.parameters()) / 1e6,
            "seconds_per_1000_samples": _measure_sampling_time(model, self.evaluation.timed_samples, device),
            **_read_training_time(self.history),
            **_get_fit_iterations(model.config),
        }
        if validation is not None:
            measured = _measure(validation, self.metrics)
            metrics |= {f"{VALIDATION_PREFIX}{name}": value for name, value in measured.items()}
        with written_together():
            write_predictions(self.get_path("predictions"), test.labels, test.log_prob)
            write_metrics(
                self.get_path("metrics"),
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
    from nfpi.results.metrics.measures import compute_metrics

    computed = compute_metrics(list_computed_metrics(names), scores.log_prob, scores.labels)
    return {"nf_acc": scores.nf_acc, "nf_top5": scores.nf_top5, "bits_per_dim": scores.bits_per_dim, **computed}


def _measure_sampling_time(model: TrainedFlow, count: int, device: torch.device) -> float:
    """Return the wall-clock seconds per 1000 samples, measured on a batch of `count` after a warm-up batch."""
    from nfpi.sampling import balanced_labels, sample_images

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
