"""Stages of the classifiers that learn from generated images."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic_settings import CliPositionalArg

from nfpi.config import ClassifierConfig, NonNegativeInt
from nfpi.stages.base import HeavyStage, mark_metrics, write_log

if TYPE_CHECKING:
    from nfpi.priors import FixedPointDiverged

logger = logging.getLogger(__name__)


class TrainClassifier(HeavyStage):
    """Train a ResNet18 on generated images, real ones or both, and measure it on the real validation split."""

    data: Path
    """folder of the splits"""
    generated: Path
    """folder of the generated images"""
    classifier: ClassifierConfig = ClassifierConfig()
    seed: NonNegativeInt = 0
    output: Path
    """folder of model.safetensors, metrics.json and log.csv"""

    def run(self) -> None:
        """Train on what `train_on` says."""
        import torch

        from nfpi.classifiers import joined, small_image_resnet18, train_classifier
        from nfpi.data import read_image_set
        from nfpi.devices import describe_device, make_fabric
        from nfpi.metrics import write_metrics
        from nfpi.outcome import raise_if_marked
        from nfpi.randomness import derive_seed
        from nfpi.serialization import save_tensors

        began = time.monotonic()
        raise_if_marked(self.generated / "meta.json")
        generated = read_image_set(self.generated)
        train = generated
        if self.classifier.train_on != "generated":
            real = read_image_set(self.data / "train")
            train = real if self.classifier.train_on == "real" else joined(real, generated)
        validation = read_image_set(self.data / "validation")
        fabric = make_fabric(self.classifier.precision)
        torch.manual_seed(derive_seed(self.seed, "resnet18"))
        architecture = {"num_classes": train.num_classes, "in_channels": train.shape[0]}
        trained = train_classifier(
            small_image_resnet18(**architecture), train, validation, self.classifier, self.seed, fabric
        )
        settings = {
            "classifier": self.classifier.model_dump(),
            "architecture": architecture,
            "temperature": generated.meta["extra"].get("temperature"),
            "images": len(train),
        }
        save_tensors(self.output / "model.safetensors", trained.model.state_dict(), {"seed": self.seed, **settings})
        write_log(self.output / "log.csv", trained.log)
        write_metrics(
            self.output / "metrics.json",
            {"validation_cnn_acc": trained.validation_acc},
            n=len(validation),
            seed=self.seed,
            settings=settings,
            device=describe_device(fabric.device),
            seconds=time.monotonic() - began,
        )

    def mark(self, fault: FixedPointDiverged) -> None:
        """There is nothing to learn from."""
        from nfpi.outcome import mark_tensors

        mark_tensors(self.output / "model.safetensors", fault)
        write_log(self.output / "log.csv", [])
        mark_metrics(self.output / "metrics.json", fault)


class TestClassifier(HeavyStage):
    """Choose the classifier that is best on the validation split, and test that one, once (CNN-Acc)."""

    __test__ = False  # not a test, whatever pytest thinks of its name

    candidates: CliPositionalArg[list[Path]]
    """folders that train-classifier left, one for each temperature"""
    data: Path
    """folder of the splits"""
    output: Path
    """metrics.json"""

    def run(self) -> None:
        """Choose by validation accuracy, then test."""
        from nfpi.classifiers import classifier_accuracy, small_image_resnet18
        from nfpi.data import read_image_set
        from nfpi.devices import describe_device, make_fabric
        from nfpi.metrics import write_metrics
        from nfpi.outcome import raise_if_marked
        from nfpi.serialization import load_tensors

        began = time.monotonic()
        accuracies = {}
        for folder in self.candidates:
            raise_if_marked(folder / "metrics.json")
            metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["metrics"]
            if "validation_cnn_acc" not in metrics:
                raise ValueError(f"{folder / 'metrics.json'}: expected validation_cnn_acc, received none")
            accuracies[folder] = metrics["validation_cnn_acc"]
        best = max(accuracies, key=lambda folder: accuracies[folder])
        weights, header = load_tensors(best / "model.safetensors")
        model = small_image_resnet18(**header["architecture"])
        model.load_state_dict(weights)
        test = read_image_set(self.data / "test")
        device = make_fabric().device
        accuracy = classifier_accuracy(model.to(device), test, device)
        chosen = {"temperature": header["temperature"]} if header["temperature"] is not None else {}
        write_metrics(
            self.output,
            {"cnn_acc": accuracy, "validation_cnn_acc": accuracies[best], **chosen},
            n=len(test),
            seed=header["seed"],
            settings={**header, "compared": {folder.name: value for folder, value in accuracies.items()}},
            device=describe_device(device),
            seconds=time.monotonic() - began,
        )
        logger.info("CNN-Acc %.2f %% on %d test images", accuracy, len(test))

    def mark(self, fault: FixedPointDiverged) -> None:
        """The metrics are « diverged »."""
        mark_metrics(self.output, fault)
