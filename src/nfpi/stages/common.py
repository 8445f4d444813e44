"""What the stages that train, and those that measure a trained model, have in common."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nfpi.config.metrics import list_computed_metrics
from nfpi.results.recorded.csv_files import write_log
from nfpi.results.recorded.records import write_metrics
from nfpi.runs import METRICS_FILE, PREDICTIONS_FILE, Run
from nfpi.runtime.divergence import Diverged, TrainingDiverged, mark_diverged
from nfpi.stages.base import Stage
from nfpi.stages.jobs import Needs, Planned, Wildcards
from nfpi.stages.prepare_data import list_meta_files, need_splits

if TYPE_CHECKING:
    import torch

    from nfpi.classifiers.scoring import Scores
    from nfpi.data.store import ImageSet
    from nfpi.evaluation import FlowScores
    from nfpi.runtime.checkpoints import Checkpoints


class TrainingStage(Stage):
    """A stage that trains a network; its output `history` is the log of the training."""

    @contextmanager
    def resuming(self, minutes: float, weight: float | None = None, **context: Any) -> Iterator[Checkpoints]:
        """Provide the checkpoints of a training; if it diverges, add properties of the run to the fault.

        Args:
            minutes: time between two checkpoints.
            weight: λ, for the record of a divergence.
            context: further properties of the run, for the record of a divergence.
        """
        from nfpi.runtime.checkpoints import Checkpoints

        try:
            yield Checkpoints(self.output, self.resume_key, minutes)
        except TrainingDiverged as fault:
            fault.weight, fault.context = weight, context
            raise

    def finish(self) -> None:
        """Remove the checkpoints, also those of a training that diverged: trained again, it would diverge again."""
        from nfpi.runtime.checkpoints import Checkpoints

        Checkpoints(self.output, self.resume_key).clear()

    def record_divergence(self, fault: Diverged) -> None:
        """Write the log of a training that diverged, and other outputs that record the divergence."""
        outputs, history = self.list_output_paths(), self.get_path("history")
        if isinstance(fault, TrainingDiverged):
            write_log(history, fault.log)
            outputs.remove(history)
        mark_diverged(outputs, fault)


class MeasuringStage(Stage):
    """A stage that measures the model of a run on the test split."""

    outputs = {"metrics": METRICS_FILE, "predictions": PREDICTIONS_FILE}
    product = "metrics"
    timed = ("metrics",)
    version = 3

    data: Path
    """folder of the splits"""
    identity: dict[str, Any] | None = None
    """identity of the run, recorded with the metrics"""
    metrics: list[str] = []
    """names of additional metrics to compute, defined by extensions"""

    @classmethod
    def select_options(cls, planned: Planned, wildcards: Wildcards) -> dict[str, Any]:
        """Return the options of a job except paths."""
        run = Run.from_wildcards(wildcards)
        metrics = planned.list_added_metrics(run)
        code = planned.list_digests(wildcards, *cls.uses, metrics=metrics)
        options = {"identity": run.to_json(), "metrics": metrics, "code": code}
        return super().select_options(planned, wildcards) | options

    def compute_metrics(self, scores: FlowScores | Scores, temperature: float | None) -> dict[str, float]:
        """Compute the metrics of densities or class probabilities, also the additional ones.

        Args:
            scores: scores on a split.
            temperature: τ of calibrated metrics; None: without them.
        """
        from nfpi.results.metrics import compute_metrics

        return compute_metrics(list_computed_metrics(self.metrics), scores.log_prob, scores.labels, temperature)

    def write(
        self,
        scores: FlowScores | Scores,
        validation: FlowScores | Scores | None,
        metrics: Mapping[str, float],
        settings: Mapping[str, Any],
        seed: int,
        device: torch.device,
        began: float,
    ) -> None:
        """Write the metrics, and the predictions of the test and validation images.

        Args:
            scores: scores on the test split.
            validation: scores on the validation split; None: it is empty.
            metrics: metrics by name.
            settings: all that they depend on.
            seed: seed of the model.
            device: device that they were computed on.
            began: time at which the stage began (:func:`time.monotonic`).
        """
        from nfpi.results.metrics import per_class_accuracy
        from nfpi.results.recorded.predictions import write_predictions
        from nfpi.runtime.device import describe_device

        on_validation = (validation.labels, validation.log_prob) if validation is not None else None
        write_predictions(self.get_path("predictions"), scores.labels, scores.log_prob, on_validation)
        write_metrics(
            self.get_path("metrics"),
            metrics,
            run=Run.from_json(self.identity) if self.identity is not None else None,
            n=len(scores.labels),
            validation_n=None if validation is None else len(validation.labels),
            seed=seed,
            settings=settings,
            device=describe_device(device),
            seconds=time.monotonic() - began,
            per_class_accuracy=per_class_accuracy(scores.log_prob, scores.labels).tolist(),
        )


UNKNOWN = {"unknown": list_meta_files("test")}
"""input of stages that detect images of another data set"""


class DetectingStage(MeasuringStage):
    """A stage that also measures how well a model tells images of another data set from those of its classes."""

    apart = ("unknown",)

    unknown: Path | None = None
    """folder of the splits of a data set whose test images are to be told from those of `data`"""

    @staticmethod
    def need_unknown(planned: Planned, wildcards: Wildcards) -> Needs:
        """Return the splits of the other data set, if any."""
        name = planned.config.for_dataset(wildcards["dataset"]).evaluation.unknown
        return {} if name is None else {"unknown": [need_splits(planned, name, wildcards["seed"])]}

    def read_unknown(self) -> ImageSet | None:
        """Read the test images of the other data set, converted to those of this one; None: there is no other."""
        from nfpi.config.datasets import DataError
        from nfpi.data.store import convert_images, read_image_set

        if self.unknown is None:
            return None
        like = read_image_set(self.data / "test")
        images = read_image_set(self.unknown / "test")
        if (received := images.images.dtype) != (expected := like.images.dtype):
            raise DataError(
                f"evaluation.unknown: expected {expected} data like {self.data}, received {received} in {self.unknown}"
            )
        converted = convert_images(images, like.shape)
        return replace(converted, labels=0 * converted.labels, meta=like.meta)


def fit_to_validation(validation: FlowScores | Scores | None) -> float | None:
    """Fit the temperature τ of calibrated metrics to the validation split; None: it is empty."""
    from nfpi.results.statistics.calibration import fit_temperature

    return None if validation is None else fit_temperature(validation.log_prob.numpy(), validation.labels.numpy())
