"""The stage that tests the best of several classifiers."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic_settings import CliPositionalArg

from nfpi.config.metrics import GENERATED_PREFIX, list_computed_metrics
from nfpi.results.recorded.records import read_record, write_metrics
from nfpi.runs import METRICS_FILE, PREDICTIONS_FILE, Run
from nfpi.runtime.files import written_together
from nfpi.runtime.manifests import remove_temporary
from nfpi.stages.base import MANIFEST, Stage
from nfpi.stages.planned import Planned, Wildcards
from nfpi.stages.prepare_data import list_meta_files
from nfpi.stages.train_classifier import VALIDATION_CNN_ACC, VALIDATION_TOP1, TrainClassifier, name_validation_metric
from nfpi.stages.words import Words

if TYPE_CHECKING:
    from nfpi.runtime.divergence import Diverged

logger = logging.getLogger(__name__)


class TestClassifier(Stage):
    """Test the classifier that is best on validation.

    Chooses the classifier by its accuracy on the validation split, and tests it once. Reports CNN-Acc if it was trained
    on generated images, else top-1 and top-5 accuracy. With --real-labels, also reports the accuracy on the
    ImageNet-ReaL labels.
    """

    __test__: ClassVar[bool] = False  # keeps pytest from collecting it

    command = "test-classifier"
    outputs = {"metrics": METRICS_FILE, "predictions": PREDICTIONS_FILE}
    product = "metrics"
    timed = ("metrics",)
    inputs = {"data": list_meta_files("test"), "candidates": ("model.safetensors", METRICS_FILE)}

    candidates: CliPositionalArg[Words[Path]]
    """output folders of train-classifier, e.g. one for each temperature"""
    data: Path
    """folder of the splits"""
    real_labels: bool = False
    """also measure accuracy on ImageNet-ReaL labels; test files must have the names of ImageNet's validation images"""
    identity: dict[str, Any] | None = None
    """identity of the run, recorded with the metrics"""
    metrics: list[str] = []
    """names of additional metrics to compute, defined by extensions"""

    @classmethod
    def select_options(cls, planned: Planned, wildcards: Wildcards) -> dict[str, Any]:
        """Return the options of a job except paths."""
        run = Run.from_wildcards(wildcards)
        metrics = planned.list_own_metrics(run)
        is_real = run.augmentation is not None
        return {
            "identity": run.to_json(),
            "metrics": metrics,
            "real_labels": is_real and planned.config.datasets[run.dataset].real_labels,
            "code": planned.list_digests(wildcards, "classifier", metrics=metrics),
        }

    def finish(self) -> None:
        """Remove the weights that are not to be kept."""

        for folder in self.candidates:
            manifest = folder / TrainClassifier.outputs[MANIFEST]  # every stage with a product has a manifest
            if manifest.is_file():
                remove_temporary(manifest)

    def run(self) -> None:
        """Choose a classifier by its validation accuracy, and test it."""
        from nfpi.classifiers.data import resize_images
        from nfpi.classifiers.registry import build_trained, stored_preprocessing
        from nfpi.classifiers.scoring import find_real_labels, score_classifier
        from nfpi.data.store import open_pixels
        from nfpi.results.metrics.measures import compute_metrics, per_class_accuracy
        from nfpi.results.recorded.predictions import write_predictions
        from nfpi.runtime.device import describe_device, make_device
        from nfpi.runtime.tensors import load_tensors

        began = time.monotonic()
        run = Run.from_json(self.identity) if self.identity is not None else None
        accuracies = _read_validation_accuracies(self)
        best = max(accuracies, key=lambda folder: accuracies[folder] or 0.0)
        weights, header = load_tensors(best / "model.safetensors")
        config, model = build_trained(weights, header, best / "model.safetensors")
        validation_metric = name_validation_metric(config)
        pixels = open_pixels(self.data / "test")
        preprocessing = stored_preprocessing(config, header, best / "model.safetensors")
        images = resize_images(pixels, config.image_size, preprocessing)
        if images.num_classes != header["size"]["num_classes"]:
            expected, received = header["size"]["num_classes"], images.num_classes
            raise ValueError(f"{self.data}: expected {expected} classes as in {best}, received {received}")
        device = make_device().device
        scores = score_classifier(
            model.to(device),
            images,
            preprocessing,
            device,
            real_labels=find_real_labels(pixels) if self.real_labels else None,
            workers=config.workers,
        )
        computed = compute_metrics(list_computed_metrics(self.metrics), scores.log_prob, scores.labels)
        if validation_metric == VALIDATION_CNN_ACC:
            computed = {f"{GENERATED_PREFIX}{name}": value for name, value in computed.items()}
            metrics = {"cnn_acc": scores.top1, "temperature": header["temperature"]}
        else:
            metrics = {"top1": scores.top1, "top5": scores.top5}
            metrics |= {"real_top1": scores.real_top1, "real_top5": scores.real_top5}
        values = {name: value for name, value in (metrics | computed).items() if value is not None}
        are_distinct = len({folder.name for folder in accuracies}) == len(accuracies)
        names = {folder: folder.name if are_distinct else folder.as_posix() for folder in accuracies}
        with written_together():
            write_predictions(self.get_path("predictions"), scores.labels, scores.log_prob)
            write_metrics(
                self.get_path("metrics"),
                values if accuracies[best] is None else values | {validation_metric: accuracies[best]},
                run=run,
                n=len(images),
                seed=header["seed"],
                settings={**header, "compared": {names[folder]: value for folder, value in accuracies.items()}},
                device=describe_device(device),
                seconds=time.monotonic() - began,
                per_class_accuracy=per_class_accuracy(scores.log_prob, scores.labels).tolist(),
            )
        logger.info("top-1 %.2f %% on %d test images", scores.top1, len(images))


def _read_validation_accuracies(stage: TestClassifier) -> dict[Path, float | None]:
    """Return the validation accuracy of each candidate that did not diverge.

    The accuracy of a single candidate may be None, if there are no validation images.

    Raises:
        Diverged: all candidates diverged.
    """
    from nfpi.runtime.divergence import Diverged, raise_if_marked

    accuracies: dict[str, dict[Path, float | None]] = {}
    divergences: list[Diverged] = []
    for folder in stage.candidates:
        path = folder / METRICS_FILE
        try:
            raise_if_marked(path)
        except Diverged as fault:
            logger.warning("%s: %s", folder, fault)
            divergences.append(fault)
            continue
        record = read_record(path)
        metrics = record["metrics"]
        name = next((name for name in (VALIDATION_CNN_ACC, VALIDATION_TOP1) if name in metrics), None)
        if name is None and record.get("n") == 0 and len(stage.candidates) == 1:
            return {folder: None}
        if name is None:
            raise ValueError(f"{path}: expected {VALIDATION_CNN_ACC} or {VALIDATION_TOP1}, received neither")
        accuracies.setdefault(name, {})[folder] = metrics[name]
    if divergences and not accuracies:
        raise divergences[0]
    if len(accuracies) != 1:
        raise ValueError(f"candidates: expected one kind of accuracy, received {' and '.join(accuracies)}")
    return accuracies.popitem()[1]
