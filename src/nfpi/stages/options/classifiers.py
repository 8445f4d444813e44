"""Stages of the classifiers of real, generated and augmented images."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic_settings import CliPositionalArg

from nfpi.config import ClassifierConfig, Name, Seed
from nfpi.runs import LOG_FILE, METRICS_FILE, PREDICTIONS_FILE
from nfpi.runtime.manifests import SUFFIX, remove_temporary
from nfpi.stages.options.base import MANIFEST, Stage
from nfpi.stages.options.data import META, list_meta_files
from nfpi.stages.options.words import Words


class TrainClassifier(Stage):
    """Train a classifier on generated and/or real images.

    Measures its accuracy on the validation split. Resumes if stopped.
    """

    command = "train-classifier"
    work = "nfpi.stages.classifiers:train"
    outputs = {"model": "model.safetensors", "metrics": METRICS_FILE, "history": LOG_FILE}
    product = "classifier"
    timed = ("metrics", "history")
    inputs = {
        "data": list_meta_files("train", "validation"),
        "generated": (META,),
        "augmented": (META,),
        "start_from": (),
    }

    data: Path
    """folder of the splits"""
    classifier: ClassifierConfig = ClassifierConfig()
    name: Name = "resnet18"
    """name of the classifier"""
    generated: Path | None = None
    """folder of the generated images, if the classifier is trained on them"""
    augmented: Path | None = None
    """folder of latent-augmented variants, which replace a share of the real training images"""
    augmentation: Literal["none", "standard"] = "standard"
    """whether to apply the classifier's standard augmentations"""
    start_from: Path | None = None
    """model.safetensors of a classifier of the same architecture to fine-tune"""
    seed: Seed = 0

    @property
    def temporary(self) -> list[Path]:
        """Weights that are not to be kept; test-classifier removes them."""
        return [] if self.classifier.keep else [self.get_path("model")]

    def list_input_files(self) -> list[Path]:
        """Return the inputs, with downloaded weights; the user's own weights are left out, as they have no manifest."""
        weights = self.classifier.weights
        fetched = weights is not None and weights.with_name(f"{weights.stem}{SUFFIX}").exists()
        return [*super().list_input_files(), *([weights] if weights is not None and fetched else [])]


class TestClassifier(Stage):
    """Test the classifier that is best on validation.

    Chooses the classifier by its accuracy on the validation split, and tests it once. Reports CNN-Acc if it was trained
    on generated images, else top-1 and top-5 accuracy. With --real-labels, also reports the accuracy on the
    ImageNet-ReaL labels.
    """

    __test__: ClassVar[bool] = False  # keeps pytest from collecting it

    command = "test-classifier"
    work = "nfpi.stages.classifiers:test"
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
    run: dict[str, Any] | None = None
    """identity of the run, recorded with the metrics"""
    metrics: list[str] = []
    """names of additional metrics to compute, defined by extensions"""

    def finish(self) -> None:
        """Remove the weights that are not to be kept."""
        for folder in self.candidates:
            manifest = folder / TrainClassifier.outputs[MANIFEST]  # every stage with a product has a manifest
            if manifest.is_file():
                remove_temporary(manifest)
