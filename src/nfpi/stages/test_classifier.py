"""The stages that test the best of several classifiers, and measure generated images by one of real images."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic_settings import CliPositionalArg

from nfpi.config.flows import QualityConfig
from nfpi.config.metrics import GENERATED_PREFIX, REAL_PREFIX, VALIDATION_PREFIX, find_network
from nfpi.results.recorded.records import read_record
from nfpi.runs import (
    GENERATED_CLASSIFIER,
    MEASURED_SAMPLES,
    METRICS_FILE,
    REAL_CLASSIFIER,
    REFERENCE_AUGMENTATION,
    Run,
    format_weight,
)
from nfpi.runtime.divergence import Diverged, raise_if_marked
from nfpi.runtime.manifests import remove_temporary
from nfpi.stages.base import Paths, Stage
from nfpi.stages.common import UNKNOWN, DetectingStage, MeasuringStage, fit_to_validation
from nfpi.stages.evaluate import Evaluate
from nfpi.stages.generate import Generate
from nfpi.stages.jobs import MANIFEST, Job, Need, Needs, Planned, Wildcards
from nfpi.stages.prepare_data import META, list_meta_files, need_splits
from nfpi.stages.train_classifier import VALIDATION_CNN_ACC, VALIDATION_TOP1, TrainClassifier, name_validation_metric

if TYPE_CHECKING:
    from nfpi.classifiers.features import Inception
    from nfpi.classifiers.scoring import LoadedClassifier, Scores
    from nfpi.data.store import ImageSet

logger = logging.getLogger(__name__)


class TestClassifier(DetectingStage):
    """Test the classifier that is best on validation.

    Chooses the classifier by its accuracy on the validation split, and tests it once. Reports CNN-Acc if it was trained
    on generated images, else top-1 and top-5 accuracy. With --real-labels, also reports the accuracy on the
    ImageNet-ReaL labels.
    """

    __test__: ClassVar[bool] = False  # keeps pytest from collecting it

    command = "test-classifier"
    places = (REAL_CLASSIFIER, GENERATED_CLASSIFIER)
    inputs = {
        "data": list_meta_files("validation", "test"),
        "candidates": ("model.safetensors", METRICS_FILE),
        **UNKNOWN,
    }
    positional = "candidates"
    blocks = {"real_labels": "datasets.{dataset}.real_labels"}
    uses = ("classifier",)

    candidates: CliPositionalArg[Paths]
    """output folders of train-classifier, e.g. one for each temperature"""
    real_labels: bool = False
    """also measure accuracy on ImageNet-ReaL labels; test files must have the names of ImageNet's validation images"""

    @classmethod
    def select_options(cls, planned: Planned, wildcards: Wildcards) -> dict[str, Any]:
        """Return the options of a job except paths."""
        options = super().select_options(planned, wildcards)
        is_real = "augmentation" in wildcards  # the path of a classifier of generated images names none
        return options | {"real_labels": is_real and options["real_labels"]}

    @classmethod
    def makes(cls, planned: Planned, wildcards: Wildcards) -> bool:
        """Return whether the metrics are those of a classifier, not of samples."""
        return not Run.from_wildcards(wildcards).measures_samples

    def list_needs(self, planned: Planned, wildcards: Wildcards) -> Needs:
        """Return the splits, and the classifiers trained at each temperature or on real images."""
        needs: Needs = {"data": [need_splits(planned, wildcards["dataset"], wildcards["seed"])]}
        if "augmentation" in wildcards:
            trained: Needs = {"candidates": [Need(Job.of(TrainClassifier, wildcards))]}
            return needs | trained | self.need_unknown(planned, wildcards)
        return needs | {"candidates": need_temperatures(planned, TrainClassifier, wildcards)}

    def finish(self) -> None:
        """Remove the weights that are not to be kept."""
        for folder in self.candidates:
            manifest = folder / TrainClassifier.outputs[MANIFEST]  # every stage with a product has a manifest
            if manifest.is_file():
                remove_temporary(manifest)

    def run(self) -> None:
        """Choose a classifier by its validation accuracy, and test it."""
        from nfpi.classifiers.scoring import LoadedClassifier, find_real_labels
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
        metrics = self._select_metrics(scores, classifier, fit_to_validation(validation), accuracies[best])
        compared = {folder.name: accuracy for folder, accuracy in accuracies.items()}
        self.write(scores, validation, metrics, {**header, "compared": compared}, header["seed"], device, began)
        logger.info("top-1 %.2f %% on %d test images", scores.top1, len(images))

    def _measure_detection(self, scores: Scores, classifier: LoadedClassifier) -> dict[str, float]:
        """Return how well images of the other data set, if any, are told from test images, by each score."""
        from nfpi.data.store import Pixels
        from nfpi.results.statistics.abstention import compute_margins
        from nfpi.results.statistics.detection import measure_detection

        if (images := self.read_unknown()) is None:
            return {}
        unknown = classifier.score(classifier.resize(Pixels(images)))
        known, other = scores.log_prob, unknown.log_prob
        found = {"confidence": (-compute_margins(known.numpy()), -compute_margins(other.numpy()))}
        if scores.bits_per_dim is not None:
            found["density"] = -known.logsumexp(1).numpy(), -other.logsumexp(1).numpy()
        return measure_detection(found)

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
            metrics = {
                name: getattr(scores, name) for name in ("top1", "top5", "real_top1", "real_top5", "bits_per_dim")
            }
            metrics |= {"calibration_temperature": temperature, **self._measure_detection(scores, classifier)}
        metrics |= {**computed, validation_metric: validation_accuracy}
        return {name: value for name, value in metrics.items() if value is not None}


def need_temperatures(planned: Planned, stage: type[Stage], wildcards: Wildcards) -> list[Need | Path | None]:
    """Return what a job reads that reads the outputs of a stage at each temperature."""
    temperatures = planned.config.for_dataset(wildcards["dataset"]).generation.temperatures
    texts = dict.fromkeys(map(format_weight, temperatures))
    return [Need(Job.of(stage, {**wildcards, "temperature": text})) for text in texts]


def _read_validation_accuracies(candidates: list[Path]) -> dict[Path, float | None]:
    """Return the validation accuracy of each candidate that did not diverge.

    The accuracy of a single candidate may be None, if there are no validation images.

    Raises:
        Diverged: all candidates diverged.
    """
    accuracies: dict[Path, float | None] = {}
    divergences: list[Diverged] = []
    for folder in candidates:
        path = folder / METRICS_FILE
        try:
            raise_if_marked(path)
        except Diverged as fault:
            logger.warning("%s: %s", folder, fault)
            divergences.append(fault)
            continue
        metrics = read_record(path)["metrics"]
        accuracies[folder] = metrics.get(VALIDATION_CNN_ACC, metrics.get(VALIDATION_TOP1))
    if divergences and not accuracies:
        raise divergences[0]
    if len(accuracies) > 1 and None in accuracies.values():
        raise ValueError("candidates: expected a single one, as there are no validation images, received several")
    return accuracies


class MeasureSamples(MeasuringStage):
    """Measure generated images by a classifier of real ones.

    Measures the images of the temperature that CNN-Acc is of: the classifier's accuracy on them (GAN-test), the share
    of saturated values and, if `metrics` names such, distances of their features from those of real images.
    """

    command = "measure-samples"
    places = (MEASURED_SAMPLES,)
    inputs = {
        "data": list_meta_files("train", "test"),
        "generated": (META,),
        "tested": (METRICS_FILE,),
        "reference": ("model.safetensors",),
    }
    positional = "generated"
    blocks = {"inception": "quality.inception"}
    uses = ("classifier",)

    generated: CliPositionalArg[Paths]
    """folders of the generated images, one for each temperature"""
    tested: Path
    """output folder of test-classifier for these images, whose metrics.json has the temperature"""
    reference: Path
    """folder of the classifier trained on real images"""
    quality: QualityConfig = QualityConfig()

    @property
    def networks(self) -> list[str]:
        """Networks whose features are compared."""
        return sorted({network for network in map(find_network, self.metrics) if network is not None})

    @property
    def weights(self) -> dict[str, list[Path]]:
        """Weights of Inception, if it is used."""
        file = self.quality.inception
        return {"inception": [file]} if file is not None and "inception" in self.networks else {}

    @classmethod
    def select_options(cls, planned: Planned, wildcards: Wildcards) -> dict[str, Any]:
        """Return the options of a job except paths."""
        return super().select_options(planned, {**wildcards, "augmentation": REFERENCE_AUGMENTATION})

    def list_inputs(self) -> dict[str, list[Path]]:
        """Return the inputs, with the weights of Inception if it is used."""
        return super().list_inputs() | self.weights

    def list_needs(self, planned: Planned, wildcards: Wildcards) -> Needs:
        """Return the splits, the images of all temperatures, the test that chose one, and the classifier."""
        tested = Run.from_wildcards(wildcards)
        reference = replace(tested, flow=None, prior=None, weight=None, augmentation=REFERENCE_AUGMENTATION)
        needs: Needs = {
            "data": [need_splits(planned, wildcards["dataset"], wildcards["seed"])],
            "generated": need_temperatures(planned, Generate, wildcards),
            "tested": [Need(Job.of(TestClassifier, wildcards))],
            "reference": [Need(Job.of(TrainClassifier, reference.wildcards))],
        }
        return needs | {role: [*files] for role, files in self.weights.items()}

    def run(self) -> None:
        """Measure the images of one temperature."""
        from nfpi.classifiers.features import require_torch_fidelity
        from nfpi.classifiers.scoring import LoadedClassifier
        from nfpi.data.store import Pixels
        from nfpi.runtime.device import make_device
        from nfpi.sampling import compute_saturated_share

        if self.networks:
            require_torch_fidelity()  # before the work
        began, device = time.monotonic(), make_device().device
        generated = self._read_generated()
        reference = LoadedClassifier.read(self.reference / "model.safetensors", device)
        scores = reference.score(reference.resize(Pixels(generated)))
        metrics = {"gan_test": scores.top1, "saturated": compute_saturated_share(generated.images)}
        for network in self.networks:
            metrics |= self._compare(network, generated, reference)
        changes = {"temperature": generated.meta["extra"]["temperature"], "quality": self.quality.model_dump()}
        seed = int(reference.header["seed"])
        self.write(scores, None, metrics, {**reference.header, **changes}, seed, device, began)
        logger.info("GAN-test %.2f %% on %d generated images", scores.top1, len(generated))

    def _read_generated(self) -> ImageSet:
        """Read the images of the temperature at which CNN-Acc was measured."""
        from nfpi.data.store import read_image_set

        raise_if_marked(self.tested / METRICS_FILE)
        temperature = read_record(self.tested / METRICS_FILE)["metrics"]["temperature"]
        for folder in self.generated:
            images = read_image_set(folder)
            if images.meta["extra"].get("temperature") == temperature:
                return images
        raise ValueError(f"generated: expected images of temperature {temperature:g}, received none")

    def _compare(self, name: str, generated: ImageSet, reference: LoadedClassifier) -> dict[str, float]:
        """Return the distances by the features of a network; none, with a warning, if there are too few images.

        If `metrics` names such, those between real images of both splits are measured on as many images.
        """
        from nfpi.classifiers.features import compare_features, draw_images
        from nfpi.data.store import read_image_set

        network, seed = self._find_network(name, reference), int(reference.header["seed"])
        splits = ("train", "test") if self.quality.split == "train" else ("test", "train")
        real, other = (read_image_set(self.data / split) for split in splits)
        compared = {"": generated}
        if any(metric.startswith(REAL_PREFIX) and find_network(metric) == name for metric in self.metrics):
            compared[REAL_PREFIX] = other
        count, enough = min(self.quality.images, *map(len, (real, *compared.values()))), 2 * network.num_features
        if count < enough:
            needs = f"expected at least {enough} images, twice the {network.num_features} features, received {count}"
            logger.warning("no FID, KID, precision and recall (%s): %s", name, needs)
            return {}
        of_real = network.extract_features(draw_images(real, count, seed))
        return {
            f"{prefix}{distance}_{name}": value
            for prefix, images in compared.items()
            for distance, value in compare_features(
                network.extract_features(draw_images(images, count, seed)), of_real, self.quality
            ).items()
        }

    def _find_network(self, name: str, reference: LoadedClassifier) -> Inception | LoadedClassifier:
        """Return the network of this name, which is the reference classifier or Inception."""
        from nfpi.classifiers.features import Inception

        if name == reference.config.model:
            return reference
        if self.quality.inception is None:
            raise ValueError(f"metrics: expected the network {reference.config.model} or inception, received {name}")
        return Inception.read(self.quality.inception, reference.device)


def need_metrics(run: Run, file: str = METRICS_FILE) -> Need:
    """Return what a job reads that reads the metrics, or another file, of a run."""
    stage = Evaluate if run.classifier is None else MeasureSamples if run.measures_samples else TestClassifier
    return Need(Job.of(stage, run.wildcards), file)
