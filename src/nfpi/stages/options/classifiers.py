"""Stages of the classifiers of real, generated and augmented images."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic_settings import CliPositionalArg

from nfpi.config import ClassifierConfig, Name, NonNegativeInt
from nfpi.runtime.manifests import SUFFIX, remove_temporary
from nfpi.stages.options.base import MANIFEST, Stage
from nfpi.stages.options.data import META, of_splits


class TrainClassifier(Stage):
    """Train a classifier on generated or real images.

    On both, where its settings say so. Its accuracy is measured on the real validation split. Resumes if stopped.
    """

    command = "train-classifier"
    work = "nfpi.stages.classifiers:train"
    outputs = {"model": "model.safetensors", "metrics": "metrics.json", "history": "log.csv"}
    product = "classifier"
    timed = ("metrics", "history")
    inputs = {
        "data": of_splits("train", "validation"),
        "generated": (META,),
        "augmented": (META,),
        "start_from": (),
    }

    data: Path
    """folder of the splits"""
    classifier: ClassifierConfig = ClassifierConfig()
    name: Name = "resnet18"
    """what the classifier is called"""
    generated: Path | None = None
    """folder of the generated images, where the classifier learns from some"""
    augmented: Path | None = None
    """folder of latent-augmented variants of the real training images, some of which they are to stand in for"""
    augmentation: Literal["none", "standard"] = "standard"
    """whether the classifier's standard augmentations are done"""
    start_from: Path | None = None
    """model.safetensors of a classifier of the same architecture, whose weights are fine-tuned"""
    seed: NonNegativeInt = 0

    @property
    def temporary(self) -> list[Path]:
        """The weights, where they are not to be kept: test-classifier removes them."""
        return [] if self.classifier.keep else [self.path("model")]

    def input_files(self) -> list[Path]:
        """Besides those of the options, published weights that a stage has fetched; a user's own have no manifest."""
        weights = self.classifier.weights
        fetched = weights is not None and weights.with_name(f"{weights.stem}{SUFFIX}").exists()
        return [*super().input_files(), *([weights] if weights is not None and fetched else [])]


class TestClassifier(Stage):
    """Test the classifier that is best on validation.

    It is chosen by its accuracy on the validation split, and tested once: CNN-Acc of a classifier that learned from
    generated images; top-1 and top-5 of one of real images, on the labels of ImageNet-ReaL as well where the data set
    has them.
    """

    __test__: ClassVar[bool] = False  # not a test, whatever pytest thinks of its name

    command = "test-classifier"
    work = "nfpi.stages.classifiers:test"
    outputs = {"metrics": "metrics.json", "predictions": "predictions.npz"}
    product = "metrics"
    timed = ("metrics",)
    inputs = {"data": of_splits("test"), "candidates": ("model.safetensors", "metrics.json")}

    candidates: CliPositionalArg[list[Path]]
    """folders that train-classifier left, e.g. one for each temperature"""
    data: Path
    """folder of the splits"""
    real_labels: bool = False
    """score on ImageNet-ReaL's labels as well: the test files are named as ImageNet's validation images"""
    run: dict[str, Any] | None = None
    """identity of the run, which is noted beside the values"""
    metrics: list[str] = []
    """names of metrics of extensions to compute, besides those of the project"""

    def end(self) -> None:
        """Remove weights that are not to be kept."""
        for folder in self.candidates:
            manifest = folder / TrainClassifier.outputs[MANIFEST]
            if manifest.is_file():
                remove_temporary(manifest)
