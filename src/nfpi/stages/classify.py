"""Stages of the classifiers of real, generated and augmented images."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic_settings import CliPositionalArg

from nfpi.config.settings import NO_RESULT, ClassifierConfig
from nfpi.config.base import Augmentation, Name, NonNegativeInt
from nfpi.stages.base import HeavyStage, mark_metrics, write_log

if TYPE_CHECKING:
    import torch

    from nfpi.classifiers.data import ClassifierData
    from nfpi.classifiers.scoring import RealLabels
    from nfpi.data.pixels import Pixels
    from nfpi.priors.fixed_point import FixedPointDiverged

logger = logging.getLogger(__name__)

_OF_GENERATED, _OF_REAL = "validation_cnn_acc", "validation_top1"
"""What the validation accuracy of a classifier is called, by what it learned from."""


class TrainClassifier(HeavyStage):
    """Train a classifier on generated images, real ones or both, and measure it on the real validation split.

    A training that was cut goes on by itself.
    """

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
    output: Path
    """folder of model.safetensors, metrics.json and log.csv"""

    def run(self) -> None:
        """Train on what `train_on` says."""
        import torch

        from nfpi.runtime.checkpoints import CheckpointRing
        from nfpi.classifiers.models import build_classifier, load_weights
        from nfpi.classifiers.training import train_classifier
        from nfpi.runtime.devices import describe_device, make_fabric
        from nfpi.runtime.files import written_together
        from nfpi.results.records import write_metrics
        from nfpi.runtime.divergence import raise_if_marked
        from nfpi.runtime.randomness import derive_seed
        from nfpi.runtime.tensors import load_tensors, save_tensors

        began = time.monotonic()
        self._check_options()
        for folder in (self.generated, self.augmented):
            if folder is not None:
                raise_if_marked(folder / "meta.json")
        fabric = make_fabric(self.classifier.precision)
        data, inputs, temperature = self._read(fabric.device)
        channels, height, _ = data.train.shape
        architecture = {"num_classes": data.train.num_classes, "in_channels": channels, "image_size": height}
        torch.manual_seed(derive_seed(self.seed, self.classifier.model))
        model = build_classifier(self.classifier, **architecture)
        if self.start_from is not None:
            load_weights(model, load_tensors(self.start_from)[0], self.start_from)
        ring = CheckpointRing(self.output, self._fingerprint(inputs), self.classifier.checkpoint_minutes)
        trained = train_classifier(model, data, self.seed, fabric, ring)
        settings = {
            "name": self.name,
            "classifier": self.classifier.model_dump(mode="json"),
            "augmentation": self._augmentation(),
            "architecture": architecture,
            "temperature": temperature,
            "images": len(data.train),
        }
        with written_together():
            save_tensors(self.output / "model.safetensors", trained.model.state_dict(), {"seed": self.seed, **settings})
            write_log(self.output / "log.csv", trained.log)
            write_metrics(
                self.output / "metrics.json",
                {_OF_REAL if self.classifier.train_on == "real" else _OF_GENERATED: trained.validation_acc},
                n=len(data.validation),
                seed=self.seed,
                settings=settings,
                device=describe_device(fabric.device),
                seconds=time.monotonic() - began,
            )
        ring.clear()

    def _augmentation(self) -> Augmentation:
        """As an experiment of the config calls it."""
        if self.augmented is None:
            return self.augmentation
        return "nfa" if self.augmentation == "none" else "standard+nfa"

    def _check_options(self) -> None:
        """Raise ValueError where folders and `train_on` contradict each other."""
        real = self.classifier.train_on == "real"
        if real and self.generated is not None:
            raise ValueError("--generated: expected none for a classifier of real images (train_on), received some")
        if not real and self.generated is None:
            raise ValueError(
                f"--generated: expected a folder with train_on '{self.classifier.train_on}', received none"
            )
        if not real and self.augmented is not None:
            raise ValueError(
                f"--augmented: expected train_on 'real' for latent augmentation, received '{self.classifier.train_on}'"
            )

    def _read(self, device: torch.device) -> tuple[ClassifierData, dict[str, Any], float | None]:
        """The images, the digests of all that was read, and the temperature of generated images."""
        from nfpi.classifiers.data import ClassifierData, Variants, joined, of_one_size
        from nfpi.classifiers.models import preprocessing_of
        from nfpi.data.pixels import Pixels, open_pixels
        from nfpi.data.autoencoder import load_decoder
        from nfpi.data.store import read_image_set

        config, preprocessing = self.classifier, preprocessing_of(self.classifier)
        digests: dict[str, Any] = {}
        parts, temperature = [], None
        if config.train_on != "generated":
            parts.append(open_pixels(self.data / "train"))
            digests["real"] = parts[-1].meta["sha256"]
        if self.generated is not None:
            generated = read_image_set(self.generated)
            if generated.images.dtype != "uint8":
                raise ValueError(f"{self.generated}: expected pixels, received latents ({generated.images.dtype})")
            temperature = generated.meta["extra"].get("temperature")
            digests["generated"] = generated.meta["sha256"]
            parts.append(Pixels(generated))
        together = parts[0] if len(parts) == 1 else Pixels(joined(parts[0].image_set, parts[1].image_set))
        train = of_one_size(together, config.image_size, preprocessing)
        validation = of_one_size(open_pixels(self.data / "validation"), config.image_size, preprocessing)
        variants = None
        if self.augmented is not None:
            stored = read_image_set(self.augmented)
            digests["augmented"] = stored.meta["sha256"]
            if stored.images.dtype == "uint8":
                variants = Variants.of(
                    train, of_one_size(Pixels(stored), config.image_size, preprocessing), None, digests["real"]
                )
            else:
                variants = Variants.of(train, stored, load_decoder(stored.meta, device), digests["real"])
        standard = config.standard if self.augmentation == "standard" else None
        return ClassifierData(train, validation, config, preprocessing, standard, variants), digests, temperature

    def _fingerprint(self, inputs: dict[str, Any]) -> str:
        """Of all that the result depends on."""
        from nfpi.runtime.files import file_digest
        from nfpi.results.records import config_hash

        without = {*NO_RESULT, "weights", "start_from"}
        files = {"weights": self.classifier.weights, "start_from": self.start_from}
        return config_hash(
            {
                "classifier": self.classifier.model_dump(mode="json", exclude=without),
                "augmentation": self.augmentation,
                "seed": self.seed,
                "files": {name: file_digest(path) for name, path in files.items() if path is not None},
                "images": inputs,
            }
        )

    def mark(self, fault: FixedPointDiverged) -> None:
        """There is nothing to learn from."""
        from nfpi.runtime.divergence import mark_tensors

        mark_tensors(self.output / "model.safetensors", fault)
        write_log(self.output / "log.csv", [])
        mark_metrics(self.output / "metrics.json", fault)


class TestClassifier(HeavyStage):
    """Choose the classifier that is best on the validation split, and test that one, once.

    CNN-Acc of a classifier that learned from generated images; top-1 and top-5 of one of real images, on the labels of
    ImageNet-ReaL as well where the data set has them.
    """

    __test__ = False  # not a test, whatever pytest thinks of its name

    candidates: CliPositionalArg[list[Path]]
    """folders that train-classifier left, e.g. one for each temperature"""
    data: Path
    """folder of the splits"""
    real_labels: bool = False
    """score on ImageNet-ReaL's labels as well: the test files are named as ImageNet's validation images"""
    output: Path
    """metrics.json"""

    def run(self) -> None:
        """Choose by validation accuracy, then test."""
        from nfpi.classifiers.models import build_classifier, load_weights, preprocessing_of
        from nfpi.classifiers.scoring import classifier_scores
        from nfpi.classifiers.data import of_one_size
        from nfpi.data.pixels import open_pixels
        from nfpi.runtime.devices import describe_device, make_fabric
        from nfpi.results.records import write_metrics
        from nfpi.runtime.tensors import load_tensors

        began = time.monotonic()
        measured, accuracies = self._validated()
        best = max(accuracies, key=lambda folder: accuracies[folder])
        weights, header = load_tensors(best / "model.safetensors")
        config = ClassifierConfig(**header["classifier"]).model_copy(update={"weights": None, "pretrained": False})
        model = build_classifier(config, **header["architecture"])
        load_weights(model, weights, best / "model.safetensors")
        pixels, preprocessing = open_pixels(self.data / "test"), preprocessing_of(config)
        test = of_one_size(pixels, config.image_size, preprocessing)
        if test.num_classes != header["architecture"]["num_classes"]:
            expected, received = header["architecture"]["num_classes"], test.num_classes
            raise ValueError(f"{self.data}: expected {expected} classes as in {best}, received {received}")
        device = make_fabric().device
        scores = classifier_scores(
            model.to(device),
            test,
            preprocessing,
            device,
            real_labels=_real_labels(pixels) if self.real_labels else None,
            workers=config.workers,
        )
        if measured == _OF_GENERATED:
            metrics = {"cnn_acc": scores.top1, "temperature": header["temperature"]}
        else:
            metrics = {"top1": scores.top1, "top5": scores.top5}
            metrics |= {"real_top1": scores.real_top1, "real_top5": scores.real_top5}
        write_metrics(
            self.output,
            {name: value for name, value in metrics.items() if value is not None} | {measured: accuracies[best]},
            n=len(test),
            seed=header["seed"],
            settings={**header, "compared": {folder.name: value for folder, value in accuracies.items()}},
            device=describe_device(device),
            seconds=time.monotonic() - began,
        )
        logger.info("top-1 %.2f %% on %d test images", scores.top1, len(test))

    def _validated(self) -> tuple[str, dict[Path, float]]:
        """What was measured on the validation split, and each candidate's value."""
        from nfpi.runtime.divergence import raise_if_marked

        accuracies: dict[str, dict[Path, float]] = {}
        for folder in self.candidates:
            path = folder / "metrics.json"
            raise_if_marked(path)
            metrics = json.loads(path.read_text(encoding="utf-8"))["metrics"]
            name = next((name for name in (_OF_GENERATED, _OF_REAL) if name in metrics), None)
            if name is None:
                raise ValueError(f"{path}: expected {_OF_GENERATED} or {_OF_REAL}, received neither")
            accuracies.setdefault(name, {})[folder] = metrics[name]
        if len(accuracies) != 1:
            raise ValueError(f"candidates: expected one kind of accuracy, received {' and '.join(accuracies)}")
        return accuracies.popitem()

    def mark(self, fault: FixedPointDiverged) -> None:
        """The metrics are « diverged »."""
        mark_metrics(self.output, fault)


def _real_labels(pixels: Pixels) -> RealLabels | None:
    """ImageNet-ReaL's labels of test images, where their files' names are known."""
    from nfpi.classifiers.scoring import RealLabels

    if pixels.file_names is None:
        logger.warning("%s: the names of the image files are not known: no score on ReaL labels", pixels.meta["name"])
        return None
    return RealLabels([str(name) for name in pixels.file_names], pixels.classes)
