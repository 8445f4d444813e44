"""The stage that trains a classifier."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nfpi.config.base import Augmentation, Name, PositiveInt, Seed
from nfpi.config.classifiers import ClassifierConfig
from nfpi.results.recorded.csv_files import write_log
from nfpi.results.recorded.records import write_metrics
from nfpi.runs import (
    CANDIDATE,
    LOG_FILE,
    METRICS_FILE,
    TRAINED_CLASSIFIER,
    VARIANTS,
    Run,
    get_variants_folder,
)
from nfpi.stages.common import TrainingStage
from nfpi.stages.generate import Augment, Generate
from nfpi.stages.jobs import Job, Need, Needs, Planned, Wildcards
from nfpi.stages.prepare_data import META, DownloadWeights, list_meta_files, need_splits

if TYPE_CHECKING:
    import torch

    from nfpi.classifiers.data import ClassifierData

VALIDATION_CNN_ACC, VALIDATION_TOP1 = "validation_cnn_acc", "validation_top1"
"""names of the validation accuracy of classifiers trained on generated and on real images"""


class TrainClassifier(TrainingStage):
    """Train a classifier on generated and/or real images.

    Measures its accuracy on the validation split. Resumes if stopped.
    """

    command = "train-classifier"
    places = (TRAINED_CLASSIFIER, CANDIDATE)
    outputs = {"model": "model.safetensors", "metrics": METRICS_FILE, "history": LOG_FILE}
    product = "classifier"
    timed = ("metrics", "history")
    inputs = {
        "data": list_meta_files("train", "validation"),
        "generated": (META,),
        "augmented": (META,),
        "start_from": (),
    }
    blocks = {
        "name": "classifier",
        "classifier": "classifiers.{classifier}",
        "weights": "classifiers.{classifier}.weights",
    }
    uses = ("classifier",)

    data: Path
    """folder of the splits"""
    classifier: ClassifierConfig = ClassifierConfig()
    name: Name = "resnet18"
    """name of the classifier"""
    generated: Path | None = None
    """folder of the generated images, if the classifier is trained on them"""
    augmented: Path | None = None
    """folder of latent-augmented variants, which replace a share of the real training images"""
    augmentation: Augmentation = "standard"
    """augmentation of real images: the classifier's `standard` one, latent variants (nfa, noise), or both; the variants
    are those in the folder `augmented`; generated images get the standard one"""
    start_from: Path | None = None
    """model.safetensors of a classifier of the same architecture to fine-tune"""
    images_per_class: PositiveInt | None = None
    """real images of an epoch per class, on average, from as many passes as they take; None: all images. By it, a
    classifier makes as many updates on real images as on generated ones"""
    seed: Seed = 0

    @classmethod
    def select_options(cls, planned: Planned, wildcards: Wildcards) -> dict[str, Any]:
        """Return the options of a job except paths; a classifier of generated images may have a reference on real."""
        options = super().select_options(planned, wildcards)
        if "augmentation" in wildcards and options["classifier"].train_on != "real":
            changes = {"train_on": "real", "keep": True}
            options["classifier"] = options["classifier"].model_copy(update=changes)
            options["images_per_class"] = planned.resolve(wildcards).generation.per_class
        return options

    @property
    def declaration(self) -> dict[str, Any]:
        """All that the classifier depends on, without settings of augmentations that are not applied."""
        declared = super().declaration
        if "standard" not in self.augmentation:
            del declared["classifier"]["standard"]
        if get_variants_folder(self.augmentation) is None:
            del declared["classifier"]["nfa_probability"]
        if self.images_per_class is None:
            del declared["images_per_class"]
        return declared

    @property
    def temporary(self) -> list[Path]:
        """Weights that are not to be kept; test-classifier removes them."""
        return [] if self.classifier.keep else [self.get_path("model")]

    def list_inputs(self) -> dict[str, list[Path]]:
        """Return the inputs, with the weights that the training begins with."""
        weights = self.classifier.weights
        return super().list_inputs() | ({"weights": [weights]} if weights is not None else {})

    def list_needs(self, planned: Planned, wildcards: Wildcards) -> Needs:
        """Return the splits, generated images or variants, and the weights that the training begins with."""
        needs: Needs = {"data": [need_splits(planned, wildcards["dataset"], wildcards["seed"])]}
        if self.classifier.weights is not None:
            needs["weights"] = [self.classifier.weights]
        if "augmentation" not in wildcards:
            return needs | {"generated": [Need(Job.of(Generate, wildcards))]}
        if self.classifier.weights is None and self.classifier.pretrained:
            name = self.classifier.model
            needs["weights"] = [Need(Job.of(DownloadWeights, {"model": name}), f"{name}.safetensors")]
        run, variants = Run.from_wildcards(wildcards), get_variants_folder(self.augmentation)
        if variants is not None:
            needs["augmented"] = [Need(Job.of(Augment, {**run.of_flow.wildcards, "variants": variants}))]
        other = planned.config.fine_tuned_from(run)
        if other is not None:
            needs["start_from"] = [Need(Job.of(TrainClassifier, other.wildcards), self.outputs["model"])]
        return needs

    def list_path_options(self, needs: Mapping[str, Sequence[str]]) -> list[str]:
        """Return the words of the command line that name the inputs."""
        weights = [word for path in needs.get("weights", ()) for word in ("--classifier.weights", path)]
        return super().list_path_options(needs) + weights

    def run(self) -> None:
        """Train a classifier on the images given by `train_on`."""
        import torch

        from nfpi.classifiers.registry import build_classifier, load_weights
        from nfpi.classifiers.training import train_classifier
        from nfpi.runtime.device import describe_device, make_device
        from nfpi.runtime.randomness import derive_seed
        from nfpi.runtime.tensors import load_tensors, save_tensors

        began = time.monotonic()
        _check_options(self)
        config = self.classifier
        device = make_device(config.precision)
        data, temperature = _read_data(self, device.device)
        channels, height, _ = data.train.shape
        size = {"num_classes": data.train.num_classes, "in_channels": channels, "image_size": height}
        torch.manual_seed(derive_seed(self.seed, config.model))
        model = build_classifier(config, **size)
        if self.start_from is not None:
            load_weights(model, load_tensors(self.start_from)[0], self.start_from)
        about: dict[str, Any] = {"seed": self.seed, "name": self.name, "temperature": temperature}
        with self.resuming(config.checkpoint_minutes, **about) as checkpoints:
            trained = train_classifier(model, data, self.seed, device, checkpoints)
        settings = {
            "name": self.name,
            "classifier": config.model_dump(mode="json") | {"precision": device.precision},
            "augmentation": self.augmentation,
            "size": size,
            "temperature": temperature,
            "images": len(data.train),
        }
        if self.images_per_class is not None:
            settings["images_per_class"] = self.images_per_class
        if config.normalization == "dataset" or data.preprocessing.scale == 1:
            kind = "elements" if data.preprocessing.scale == 1 else "normalization"
            settings[kind] = {"mean": list(data.preprocessing.mean), "std": list(data.preprocessing.std)}
        save_tensors(self.get_path("model"), trained.state.module.state_dict(), {"seed": self.seed, **settings})
        write_log(self.get_path("history"), trained.state.log)
        write_metrics(
            self.get_path("metrics"),
            {} if trained.validation_acc is None else {name_validation_metric(config): trained.validation_acc},
            run=None,
            n=len(data.validation),
            seed=self.seed,
            settings=settings,
            device=describe_device(device.device),
            seconds=time.monotonic() - began,
        )


def name_validation_metric(config: ClassifierConfig) -> str:
    """Return the name of the validation accuracy, which depends on the training images."""
    return VALIDATION_TOP1 if config.train_on == "real" else VALIDATION_CNN_ACC


def _check_options(stage: TrainClassifier) -> None:
    """Raise ValueError if folders, `train_on` and `augmentation` contradict each other."""
    train_on, has_variants = stage.classifier.train_on, get_variants_folder(stage.augmentation) is not None
    if has_variants and train_on != "real":
        raise ValueError(f"--augmentation: expected train_on 'real' with {stage.augmentation}, received '{train_on}'")
    for option, needed in (("generated", train_on != "real"), ("augmented", has_variants)):
        if needed != (getattr(stage, option) is not None):
            expected = f"{'a' if needed else 'no'} folder with train_on '{train_on}' and {stage.augmentation}"
            raise ValueError(f"--{option}: expected {expected}, received {getattr(stage, option)}")


def _read_data(stage: TrainClassifier, device: torch.device) -> tuple[ClassifierData, float | None]:
    """Read the images; also return the temperature of generated images."""
    from nfpi.classifiers.data import ClassifierData, Variants, concatenate, resize_images
    from nfpi.classifiers.preprocessing import channel_statistics
    from nfpi.classifiers.registry import get_preprocessing
    from nfpi.data.autoencoder import load_decoder
    from nfpi.data.domain import Standardisation
    from nfpi.data.store import Pixels, open_pixels, read_image_set

    config, preprocessing = stage.classifier, get_preprocessing(stage.classifier)
    parts, temperature = [], None
    if config.train_on != "generated":
        parts.append(open_pixels(stage.data / "train"))
    if stage.generated is not None:
        generated = read_image_set(stage.generated)
        if generated.images.dtype != "uint8":
            raise ValueError(f"{stage.generated}: expected pixels, received latents ({generated.images.dtype})")
        temperature = generated.meta["extra"].get("temperature")
        parts.append(Pixels(generated))
    combined = parts[0] if len(parts) == 1 else Pixels(concatenate(parts[0].image_set, parts[1].image_set))
    is_vector = combined.image_set.images.dtype == "float32"
    if is_vector and (stage.augmentation, config.image_size) != ("none", None):
        received = f"{stage.augmentation} and {config.image_size}"
        raise ValueError(f"vectors: expected augmentation none and image_size null, received {received}")
    train = resize_images(combined, config.image_size, preprocessing)
    validation = resize_images(open_pixels(stage.data / "validation"), config.image_size, preprocessing)
    variants = None
    if stage.augmented is not None:
        stored, digest = read_image_set(stage.augmented), combined.image_set.meta["sha256"]
        displacement = stored.meta["extra"].get("displacement", "mix")
        if (displacement == "noise") != (get_variants_folder(stage.augmentation) == VARIANTS["noise"]):
            raise ValueError(
                f"{stage.augmented}: expected variants for '{stage.augmentation}', received those of '{displacement}'"
            )
        if stored.images.dtype == "uint8":
            pixels = resize_images(Pixels(stored), config.image_size, preprocessing)
            variants = Variants.from_image_set(pixels, train, None, digest)
        else:
            variants = Variants.from_image_set(stored, train, load_decoder(stored.meta, device), digest)
    if is_vector:
        preprocessing = preprocessing.for_vectors(Standardisation.model_validate(train.meta["extra"]))
    elif config.normalization == "dataset":
        preprocessing = get_preprocessing(config, channel_statistics(train))
    standard = config.standard if "standard" in stage.augmentation else None
    drawn = None if stage.images_per_class is None else config.repeats * stage.images_per_class * train.num_classes
    return ClassifierData(train, validation, config, preprocessing, standard, variants, drawn), temperature
