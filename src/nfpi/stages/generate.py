"""The stages that make images with a flow: samples and latent-augmented variants."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from nfpi.config.base import PositiveFloat, PositiveInt, Seed
from nfpi.config.extensions import compute_code_digest
from nfpi.config.flows import FLOWS
from nfpi.config.generation import Displacement, NfaConfig
from nfpi.results.recorded.records import config_hash
from nfpi.runs import IMAGE_SET_FILES, MODEL_FILES, VARIANTS
from nfpi.runtime.files import file_digest
from nfpi.stages.base import Stage
from nfpi.stages.planned import Planned, Wildcards
from nfpi.stages.prepare_data import list_meta_files

if TYPE_CHECKING:
    from nfpi.augmentation import PrincipalAxes
    from nfpi.model.trained import TrainedFlow

logger = logging.getLogger(__name__)


class Generate(Stage):
    """Draw labelled images from a trained flow.

    Writes them in the on-disk format of data sets. Resumes if stopped.
    """

    command = "generate"
    outputs = IMAGE_SET_FILES
    product = "generated images"
    replaces_folder = True
    inputs = {"model": tuple(MODEL_FILES.values())}
    blocks = {"per_class": "generation.per_class", "batch_size": "generation.batch_size"}

    model: Path
    """folder of the model"""
    temperature: PositiveFloat = 1.0
    """scale of the deviations from the class means"""
    per_class: PositiveInt = 5000
    batch_size: PositiveInt = 1000
    seed: Seed = 0

    @classmethod
    def select_options(cls, planned: Planned, wildcards: Wildcards) -> dict[str, Any]:
        """Return the options of a job except paths."""
        generation = planned.config.for_dataset(wildcards["dataset"]).generation
        return {
            "temperature": float(wildcards["temperature"]),
            "per_class": generation.per_class,
            "batch_size": generation.batch_size,
            "seed": int(wildcards["seed"]),
            "code": planned.list_digests(wildcards, "flow"),
        }

    def run(self) -> None:
        """Sample images, and write them batch by batch."""
        import numpy as np

        from nfpi.data.writer import ImageSetWriter
        from nfpi.model.trained import TrainedFlow
        from nfpi.runtime.device import make_device
        from nfpi.sampling import balanced_labels, sample_images

        model = TrainedFlow.read(self.model)
        device, domain = make_device().device, model.domain
        labels = balanced_labels(model.prior.num_classes, self.per_class)
        channels, height, width = model.flow.shape
        settings = self.model_dump(include={"temperature", "per_class", "batch_size", "seed"})
        with ImageSetWriter(
            self.output,
            len(labels),
            (height, width, channels),
            model.classes,
            name=model.data["name"],
            split="generated",
            dtype=domain.dtype,
            fingerprint=config_hash({**settings, **_compute_model_digests(model, self.model)}),
            **{**model.data["extra"], "temperature": self.temperature, "seed": self.seed},
        ) as writer:
            done = writer.first_missing // self.batch_size
            places = np.arange(len(labels))[done * self.batch_size :]
            for images, classes in sample_images(
                model.flow.to(device),
                model.prior,
                labels,
                temperature=self.temperature,
                seed=self.seed,
                batch_size=self.batch_size,
                domain=domain,
                device=device,
                start_batch=done,
            ):
                here, places = places[: len(images)], places[len(images) :]
                writer.put(here, images.permute(0, 2, 3, 1).numpy(), classes.numpy())


class Augment(Stage):
    """Make latent-augmented variants of training images.

    Writes variants of all images in the on-disk format of data sets. Resumes if stopped.
    """

    command = "augment"
    outputs = IMAGE_SET_FILES
    product = "augmented images"
    replaces_folder = True
    inputs = {"data": list_meta_files("train"), "model": tuple(MODEL_FILES.values())}

    data: Path
    """folder of the splits; the variants are written in the order of its training images"""
    model: Path
    """folder of the model"""
    nfa: NfaConfig = NfaConfig()
    displacement: Displacement = "mix"
    """mix: move each latent towards another of its class (NFA); noise: by the same distance in a random direction"""
    seed: Seed = 0

    @classmethod
    def select_options(cls, planned: Planned, wildcards: Wildcards) -> dict[str, Any]:
        """Return the options of a job except paths."""
        displacements = {VARIANTS["nfa"]: "mix", VARIANTS["noise"]: "noise"}
        return {
            "nfa": planned.config.for_dataset(wildcards["dataset"]).nfa,
            "displacement": displacements[wildcards["variants"]],
            "seed": int(wildcards["seed"]),
            "code": planned.list_digests(wildcards, "flow"),
        }

    def run(self) -> None:
        """Make variants class by class, and write them batch by batch.

        The share of each class's variance that its principal axes explain is recorded beside the images; to compute
        this share, a resumed stage encodes the images of finished classes again.
        """
        import numpy as np

        from nfpi.augmentation import augment_images
        from nfpi.data.store import read_image_set
        from nfpi.data.writer import ImageSetWriter
        from nfpi.model.trained import TrainedFlow
        from nfpi.runtime.device import make_device

        model = TrainedFlow.read(self.model)
        train = read_image_set(self.data / "train")
        model.require_classes(train.classes, self.data)
        device, domain, variants = make_device().device, model.domain, self.nfa.variants
        channels, height, width = train.shape
        fingerprinted = {"nfa": self.nfa.model_dump(), "seed": self.seed, "data": train.meta["sha256"]}
        recorded = self.nfa.model_dump(exclude={"batch_size"}) | {"seed": self.seed, "of": train.meta["sha256"]}
        if self.displacement != "mix":
            for record in (fingerprinted, recorded):
                record["displacement"] = self.displacement
        axes: dict[int, PrincipalAxes] = {}
        with (
            ImageSetWriter(
                self.output,
                len(train) * variants,
                (height, width, channels),
                train.classes,
                name=train.meta["name"],
                split="augmented",
                dtype=domain.dtype,
                fingerprint=config_hash({**fingerprinted, **_compute_model_digests(model, self.model)}),
                **{**model.data["extra"], **recorded},
            ) as writer,
            tqdm(total=len(train), desc="augment", unit="image", disable=None) as progress,
        ):
            missing = np.flatnonzero(~writer.written.reshape(-1, variants).all(1))
            progress.update(len(train) - len(missing))
            for indices, images in augment_images(
                model.flow.to(device),
                train,
                self.nfa,
                seed=self.seed,
                domain=domain,
                device=device,
                indices=missing,
                displacement=self.displacement,
                on_axes=axes.__setitem__,
            ):
                places = indices[:, None] * variants + np.arange(variants)
                labels = train.labels[indices].repeat(variants)
                writer.put(places.ravel(), images.flatten(0, 1).permute(0, 2, 3, 1).numpy(), labels)
                progress.update(len(indices))
            writer.note(axes_variance_share=_summarize_variance_shares(axes, train.classes))
        logger.info("made %d variants of each of %d images", variants, len(train))


def _summarize_variance_shares(axes: Mapping[int, PrincipalAxes], classes: Sequence[str]) -> dict[str, Any]:
    """Return and log the share of latent variance that the axes of each class explain, and the mean share."""
    shares = {classes[label]: found.variance_share for label, found in sorted(axes.items())}
    mean = sum(shares.values()) / len(shares)
    smallest = min(shares, key=lambda name: shares[name])
    logger.info(
        "the axes explain %.1f %% of a class's variance on average, and at least %.1f %% (class '%s')",
        100 * mean,
        100 * shares[smallest],
        smallest,
    )
    unresolved = [classes[label] for label, found in sorted(axes.items()) if not found.converged]
    if unresolved:
        logger.warning(
            "the PCA axes of %d classes have not converged, e.g. those of class '%s'", len(unresolved), unresolved[0]
        )
    return {"mean": mean, "classes": shares}


def _compute_model_digests(model: TrainedFlow, folder: Path) -> dict[str, str]:
    """Return digests of a model's weights and of its flow's code, which its images depend on besides settings."""
    from nfpi.model.trained import WEIGHTS

    return {"model": file_digest(folder / WEIGHTS), "code": compute_code_digest(FLOWS[model.flow.kind])}
