"""The stages that measure a trained model: a flow, or the best of several classifiers."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic_settings import CliPositionalArg

from nfpi.config.generation import EvaluationConfig
from nfpi.config.metrics import GENERATED_PREFIX, VALIDATION_PREFIX, list_computed_metrics
from nfpi.results.recorded.csv_files import read_column
from nfpi.results.recorded.records import read_record, write_metrics
from nfpi.runs import INITIAL_FILES, METRICS_FILE, MODEL_FILES, PREDICTIONS_FILE, Run
from nfpi.runtime.divergence import Diverged, raise_if_marked
from nfpi.runtime.manifests import remove_temporary
from nfpi.stages.base import MANIFEST, Stage, Words
from nfpi.stages.planned import Planned, Wildcards
from nfpi.stages.prepare_data import list_meta_files
from nfpi.stages.train_classifier import VALIDATION_CNN_ACC, VALIDATION_TOP1, TrainClassifier, name_validation_metric

if TYPE_CHECKING:
    import torch

    from nfpi.classifiers.loaded import LoadedClassifier
    from nfpi.classifiers.scoring import Scores
    from nfpi.data.store import ImageSet
    from nfpi.evaluation import FlowScores
    from nfpi.model.trained import TrainedFlow

logger = logging.getLogger(__name__)


class MeasuringStage(Stage):
    """A stage that measures the model of a run on the test split."""

    outputs = {"metrics": METRICS_FILE, "predictions": PREDICTIONS_FILE}
    product = "metrics"
    timed = ("metrics",)
    version = 2

    other_inputs = {"unknown": list_meta_files("test")}

    data: Path
    """folder of the splits"""
    unknown: Path | None = None
    """folder of the splits of a data set whose test images are to be told from those of `data`"""
    identity: dict[str, Any] | None = None
    """identity of the run, recorded with the metrics"""
    metrics: list[str] = []
    """names of additional metrics to compute, defined by extensions"""

    @classmethod
    def select_options(cls, planned: Planned, wildcards: Wildcards) -> dict[str, Any]:
        """Return the options of a job except paths."""
        run = Run.from_wildcards(wildcards)
        metrics = planned.list_own_metrics(run)
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

    def read_unknown(self) -> ImageSet | None:
        """Read the test images of the other data set, converted to those of this one; None: there is no other."""
        from nfpi.data.store import convert_images, read_image_set

        if self.unknown is None:
            return None
        return convert_images(read_image_set(self.unknown / "test"), read_image_set(self.data / "test"))

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
            seed=seed,
            settings=settings,
            device=describe_device(device),
            seconds=time.monotonic() - began,
            per_class_accuracy=per_class_accuracy(scores.log_prob, scores.labels).tolist(),
        )


class Evaluate(MeasuringStage):
    """Measure NF-Acc, bits/dim and more of a trained flow.

    Uses all splits: the training images tell how the latents follow the prior.
    """

    command = "evaluate"
    inputs = {
        "data": list_meta_files("train", "validation", "test"),
        "initial": (INITIAL_FILES["statistics"],),  # before the model, whose λ is that of the run
        "model": tuple(MODEL_FILES.values()),
        "history": (),
    }
    uses = ("flow",)

    model: Path
    """folder of the model"""
    history: Path | None = None
    """log.csv of its training, for the training time"""
    initial: Path | None = None
    """folder of the initial state that its Gaussians were fitted to, for `beta_fit`"""
    evaluation: EvaluationConfig = EvaluationConfig()

    def run(self) -> None:
        """Evaluate on the test split and, unless it is empty, the validation split; and time sampling."""
        from nfpi.model.trained import TrainedFlow
        from nfpi.runtime.device import make_device

        began = time.monotonic()
        model, device = TrainedFlow.read(self.model), make_device().device
        flow = model.flow.to(device)
        test, validation = self._score(model, "test", device), self._score(model, "validation", device)
        assert test is not None
        temperature = _fit_temperature(validation)
        metrics = {
            **self._measure(test, temperature),
            "parameters": sum(parameter.numel() for parameter in flow.parameters()) / 1e6,
            "seconds_per_1000_samples": _measure_sampling_time(model, self.evaluation.timed_samples, device),
            **_read_training_time(self.history),
            **self._measure_following(model, test.bits_per_dim, device),
        }
        iterations = model.config.get("prior", {}).get("iterations")
        if iterations is not None:
            metrics["fit_iterations"] = float(iterations)
        if validation is not None and temperature is not None:
            measured = self._measure(validation, temperature)
            metrics |= {f"{VALIDATION_PREFIX}{name}": value for name, value in measured.items()}
            metrics["calibration_temperature"] = temperature
            metrics |= self._measure_detection(model, test, validation, device)
        self.write(test, validation, metrics, {"flow": flow.description, **model.config}, model.seed, device, began)
        logger.info("NF-Acc %.2f %%, %.4f bits/dim on %d test images", test.nf_acc, test.bits_per_dim, test.n)

    def _measure_detection(
        self, model: TrainedFlow, test: FlowScores, validation: FlowScores, device: torch.device
    ) -> dict[str, float]:
        """Return how well images of the other data set, if any, are told from test images by each score."""
        from nfpi.evaluation import measure_unknown
        from nfpi.results.statistics.abstention import compute_margins
        from nfpi.results.statistics.detection import Typicality, measure_detection

        if (images := self.read_unknown()) is None:
            return {}
        log_prob, distance = measure_unknown(model.flow, model.prior, images, **self._choose_batches(model, device))
        typicality = Typicality.from_validation(validation.distance.numpy())
        return measure_detection(
            {
                "confidence": (-compute_margins(test.log_prob.numpy()), -compute_margins(log_prob.numpy())),
                "density": (-test.log_prob.logsumexp(1).numpy(), -log_prob.logsumexp(1).numpy()),
                "typicality": (typicality.measure(test.distance.numpy()), typicality.measure(distance.numpy())),
            }
        )

    def _score(self, model: TrainedFlow, split: str, device: torch.device) -> FlowScores | None:
        """Evaluate the flow on a split; None: there are no images for validation."""
        from nfpi.data.store import MAY_BE_EMPTY, read_image_set
        from nfpi.evaluation import evaluate_flow

        images = read_image_set(self.data / split)
        if split == MAY_BE_EMPTY and not len(images):
            return None
        return evaluate_flow(model.flow, model.prior, images, **self._choose_batches(model, device))

    def _choose_batches(self, model: TrainedFlow, device: torch.device) -> dict[str, Any]:
        """Return the arguments that determine the batches and their noise, the same for every pass over a split."""
        return {
            "batch_size": self.evaluation.batch_size,
            "seed": model.seed,
            "domain": model.domain,
            "device": device,
        }

    def _measure_following(self, model: TrainedFlow, bits_per_dim: float, device: torch.device) -> dict[str, float]:
        """Return the metrics that tell whether the latents follow the prior.

        Args:
            model: the model, with its flow on the device.
            bits_per_dim: bits/dim of the test images under the prior.
            device: the device.
        """
        from nfpi.data.store import read_image_set
        from nfpi.evaluation import collect_statistics, evaluate_flow
        from nfpi.priors.files import load_statistics
        from nfpi.priors.following import compute_beta, estimate_moments, measure_following
        from nfpi.priors.registry import find_relative_weight, is_fitted_to_means

        train, test = (read_image_set(self.data / split) for split in ("train", "test"))
        batches, record = self._choose_batches(model, device), model.config.get("prior", {})
        of_train, of_test = (
            collect_statistics(model.flow, images, covariance=model.prior.is_full, **batches)
            for images in (train, test)
        )
        found = measure_following(model.prior, of_train)
        metrics: dict[str, float | None] = {
            "training_distance": found.distance,
            "distance": measure_following(model.prior, of_test).distance,
            "prior_separation": found.prior_separation,
            "latent_separation": found.latent_separation,
            "relative_weight": find_relative_weight(record, *model.prior.mean.shape),
        }
        if found.mismatch is not None:
            under_moments = evaluate_flow(model.flow, estimate_moments(of_train), test, **batches)
            metrics["mismatch"] = bits_per_dim - under_moments.bits_per_dim
        if is_fitted_to_means(record):
            metrics["beta"] = found.beta
            if self.initial is not None and "method" in record and "refit" not in record:
                at_fit = load_statistics(self.initial / INITIAL_FILES["statistics"])
                metrics["beta_fit"] = compute_beta(model.prior, at_fit)
        return {name: value for name, value in metrics.items() if value is not None}

    def _measure(self, scores: FlowScores, temperature: float | None) -> dict[str, float]:
        """Return the metrics of one split."""
        own = {name: getattr(scores, name) for name in ("nf_acc", "nf_top5", "bits_per_dim")}
        return own | self.compute_metrics(scores, temperature)


def _fit_temperature(validation: FlowScores | Scores | None) -> float | None:
    """Fit τ to the validation split; None: it is empty."""
    from nfpi.results.statistics.calibration import fit_temperature

    return None if validation is None else fit_temperature(validation.log_prob.numpy(), validation.labels.numpy())


def _measure_sampling_time(model: TrainedFlow, count: int, device: torch.device) -> float:
    """Return the wall-clock seconds per 1000 samples, measured on a batch of `count` after a warm-up batch."""
    from nfpi.sampling import balanced_labels, sample_images

    labels = balanced_labels(model.prior.num_classes, -(-count // model.prior.num_classes))[:count]
    settings: dict[str, Any] = {"temperature": 1.0, "seed": model.seed, "batch_size": len(labels)}
    seconds = 0.0
    for _ in range(2):
        began = time.monotonic()
        for _ in sample_images(model.flow, model.prior, labels, domain=model.domain, device=device, **settings):
            pass
        seconds = time.monotonic() - began
    return 1000 * seconds / len(labels)


def _read_training_time(history: Path | None) -> dict[str, float]:
    """Return the hours of the training and the median time per epoch, if its log is given."""
    # the cells of epochs of the initial state are empty
    seconds = [] if history is None else read_column(history, "seconds")
    return {"hours": sum(seconds) / 3600, "seconds_per_epoch": statistics.median(seconds)} if seconds else {}


class TestClassifier(MeasuringStage):
    """Test the classifier that is best on validation.

    Chooses the classifier by its accuracy on the validation split, and tests it once. Reports CNN-Acc if it was trained
    on generated images, else top-1 and top-5 accuracy. With --real-labels, also reports the accuracy on the
    ImageNet-ReaL labels.
    """

    __test__: ClassVar[bool] = False  # keeps pytest from collecting it

    command = "test-classifier"
    inputs = {"data": list_meta_files("validation", "test"), "candidates": ("model.safetensors", METRICS_FILE)}
    blocks = {"real_labels": "datasets.{dataset}.real_labels"}
    uses = ("classifier",)

    candidates: CliPositionalArg[Words[Path]]
    """output folders of train-classifier, e.g. one for each temperature"""
    real_labels: bool = False
    """also measure accuracy on ImageNet-ReaL labels; test files must have the names of ImageNet's validation images"""

    @classmethod
    def select_options(cls, planned: Planned, wildcards: Wildcards) -> dict[str, Any]:
        """Return the options of a job except paths."""
        options = super().select_options(planned, wildcards)
        is_real = "augmentation" in wildcards  # the path of a classifier of generated images names none
        return options | {"real_labels": is_real and options["real_labels"]}

    def finish(self) -> None:
        """Remove the weights that are not to be kept."""
        for folder in self.candidates:
            manifest = folder / TrainClassifier.outputs[MANIFEST]  # every stage with a product has a manifest
            if manifest.is_file():
                remove_temporary(manifest)

    def run(self) -> None:
        """Choose a classifier by its validation accuracy, and test it."""
        from nfpi.classifiers.loaded import LoadedClassifier
        from nfpi.classifiers.scoring import find_real_labels
        from nfpi.data.store import MAY_BE_EMPTY, open_pixels
        from nfpi.runtime.device import make_device

        began = time.monotonic()
        accuracies = _read_validation_accuracies(self.candidates)
        best = max(accuracies, key=lambda folder: accuracies[folder] or 0.0)
        device = make_device().device
        classifier = LoadedClassifier.read(best / "model.safetensors", device)
        header, pixels = classifier.header, open_pixels(self.data / "test")
        images = classifier.resize(pixels)
        if images.num_classes != header["size"]["num_classes"]:
            expected, received = header["size"]["num_classes"], images.num_classes
            raise ValueError(f"{self.data}: expected {expected} classes as in {best}, received {received}")
        scores = classifier.score(images, find_real_labels(pixels) if self.real_labels else None)
        held_out = classifier.resize(open_pixels(self.data / MAY_BE_EMPTY))
        validation = classifier.score(held_out) if len(held_out) else None
        metrics = self._select_metrics(scores, classifier, _fit_temperature(validation), accuracies[best])
        are_distinct = len({folder.name for folder in accuracies}) == len(accuracies)
        compared = {
            folder.name if are_distinct else folder.as_posix(): accuracy for folder, accuracy in accuracies.items()
        }
        self.write(scores, validation, metrics, {**header, "compared": compared}, header["seed"], device, began)
        logger.info("top-1 %.2f %% on %d test images", scores.top1, len(images))

    def _measure_detection(self, scores: Scores, classifier: LoadedClassifier) -> dict[str, float]:
        """Return how well images of the other data set, if any, are told from test images by the margin."""
        from nfpi.data.store import Pixels
        from nfpi.results.statistics.abstention import compute_margins
        from nfpi.results.statistics.detection import measure_detection

        if (images := self.read_unknown()) is None:
            return {}
        known, unknown = (
            -compute_margins(found.log_prob.numpy())
            for found in (scores, classifier.score(classifier.resize(Pixels(images))))
        )
        return measure_detection({"confidence": (known, unknown)})

    def _select_metrics(
        self,
        scores: Scores,
        classifier: LoadedClassifier,
        temperature: float | None,
        validation_accuracy: float | None,
    ) -> dict[str, float]:
        """Return the metrics of the test, under the names of those of classifiers trained on such images.

        Args:
            scores: scores on the test split.
            classifier: the classifier.
            temperature: τ of calibrated metrics; None: without them.
            validation_accuracy: accuracy on the validation split; None: it is empty.
        """
        metrics: dict[str, float | None]
        if "images_per_class" in classifier.header:  # trained on as many real images as another on generated ones
            metrics = {"real_acc": scores.top1, f"{VALIDATION_PREFIX}real_acc": validation_accuracy}
            return {name: value for name, value in metrics.items() if value is not None}
        computed = self.compute_metrics(scores, temperature)
        validation_metric = name_validation_metric(classifier.config)
        if validation_metric == VALIDATION_CNN_ACC:
            computed = {f"{GENERATED_PREFIX}{name}": value for name, value in computed.items()}
            metrics = {"cnn_acc": scores.top1, "temperature": classifier.header["temperature"]}
        else:
            metrics = {name: getattr(scores, name) for name in ("top1", "top5", "real_top1", "real_top5")}
            metrics |= {"calibration_temperature": temperature, **self._measure_detection(scores, classifier)}
        metrics |= {**computed, validation_metric: validation_accuracy}
        return {name: value for name, value in metrics.items() if value is not None}


def _read_validation_accuracies(candidates: list[Path]) -> dict[Path, float | None]:
    """Return the validation accuracy of each candidate that did not diverge.

    The accuracy of a single candidate may be None, if there are no validation images.

    Raises:
        Diverged: all candidates diverged.
    """
    accuracies: dict[str, dict[Path, float | None]] = {}
    divergences: list[Diverged] = []
    for folder in candidates:
        path = folder / METRICS_FILE
        try:
            raise_if_marked(path)
        except Diverged as fault:
            logger.warning("%s: %s", folder, fault)
            divergences.append(fault)
            continue
        record = read_record(path)
        if record.get("n") == 0 and len(candidates) == 1:
            return {folder: None}
        name = next((name for name in (VALIDATION_CNN_ACC, VALIDATION_TOP1) if name in record["metrics"]), None)
        if name is None:
            raise ValueError(f"{path}: expected {VALIDATION_CNN_ACC} or {VALIDATION_TOP1}, received neither")
        accuracies.setdefault(name, {})[folder] = record["metrics"][name]
    if divergences and not accuracies:
        raise divergences[0]
    if len(accuracies) != 1:
        raise ValueError(f"candidates: expected one kind of accuracy, received {' and '.join(accuracies)}")
    return accuracies.popitem()[1]
