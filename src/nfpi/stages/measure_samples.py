"""The stage that measures generated images by a classifier trained on real ones."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_settings import CliPositionalArg

from nfpi.config.flows import QualityConfig
from nfpi.config.metrics import find_network
from nfpi.results.recorded.records import read_record
from nfpi.runs import MEASURED_SAMPLES, METRICS_FILE, REFERENCE_AUGMENTATION, Run
from nfpi.runtime.divergence import raise_if_marked
from nfpi.stages.base import Words
from nfpi.stages.evaluate import Evaluate
from nfpi.stages.generate import Generate
from nfpi.stages.measuring import MeasuringStage
from nfpi.stages.needs import Job, Need, Needs
from nfpi.stages.planned import Planned, Wildcards
from nfpi.stages.prepare_data import META, list_meta_files, need_splits
from nfpi.stages.test_classifier import TestClassifier, need_temperatures
from nfpi.stages.train_classifier import TrainClassifier

if TYPE_CHECKING:
    from nfpi.classifiers.features import Inception
    from nfpi.classifiers.loaded import LoadedClassifier
    from nfpi.data.store import ImageSet

logger = logging.getLogger(__name__)


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

    generated: CliPositionalArg[Words[Path]]
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

    @classmethod
    def select_options(cls, planned: Planned, wildcards: Wildcards) -> dict[str, Any]:
        """Return the options of a job except paths."""
        return super().select_options(planned, {**wildcards, "augmentation": REFERENCE_AUGMENTATION})

    def list_inputs(self) -> dict[str, list[Path]]:
        """Return the inputs, with the weights of Inception if it is used."""
        weights = self.quality.inception if "inception" in self.networks else None
        return super().list_inputs() | ({"inception": [weights]} if weights is not None else {})

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
        weights = self.quality.inception if "inception" in self.networks else None
        return needs | ({"inception": [weights]} if weights is not None else {})

    def run(self) -> None:
        """Measure the images of one temperature."""
        from nfpi.classifiers.features import require_torch_fidelity
        from nfpi.classifiers.loaded import LoadedClassifier
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
        """Return the distances by the features of a network; none, with a warning, if there are too few images."""
        from nfpi.classifiers.features import TooFewImages, compare_features, draw_images, require_enough_images
        from nfpi.data.store import read_image_set

        sets = generated, read_image_set(self.data / self.quality.split)
        count, seed = min(self.quality.images, *map(len, sets)), int(reference.header["seed"])
        try:
            network = self._find_network(name, reference)
            require_enough_images(count, network.num_features)
            of_generated, of_real = (network.extract_features(draw_images(images, count, seed)) for images in sets)
            found = compare_features(of_generated, of_real, self.quality)
        except TooFewImages as fault:
            logger.warning("no FID, KID, precision and recall (%s): %s", name, fault)
            return {}
        return {f"{distance}_{name}": value for distance, value in found.items()}

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
