"""The stages that make images with a flow: samples and latent-augmented variants."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from nfpi.config.base import PositiveFloat, PositiveInt, Seed
from nfpi.config.flows import Displacement, NfaConfig
from nfpi.runs import AUGMENTED, GENERATED, IMAGE_SET_FILES, MODEL_FILES, VARIANTS
from nfpi.stages.base import Stage
from nfpi.stages.jobs import Needs, Planned, Wildcards
from nfpi.stages.models import need_model
from nfpi.stages.prepare_data import list_meta_files, need_splits

if TYPE_CHECKING:
    from nfpi.data.writer import ImageSetWriter
    from nfpi.model import ClassConditionalFlow

logger = logging.getLogger(__name__)


class ImageStage(Stage):
    """A stage that makes images with a flow, in the on-disk format of data sets; it resumes if stopped."""

    outputs = IMAGE_SET_FILES
    replaces_folder = True
    uses = ("flow",)

    model: Path
    """folder of the model"""
    seed: Seed = 0

    def open_writer(
        self, model: ClassConditionalFlow, count: int, name: str, split: str, **extra: Any
    ) -> ImageSetWriter:
        """Return a writer of the images.

        Args:
            model: the model.
            count: number of images.
            name: name of the data set.
            split: what the images are.
            extra: further entries of `extra` in meta.json.
        """
        from nfpi.data.writer import ImageSetWriter

        channels, height, width = model.flow.shape
        return ImageSetWriter(
            self.output,
            count,
            (height, width, channels),
            model.classes,
            name=name,
            split=split,
            dtype=model.domain.dtype,
            resume_key=self.resume_key,
            **{**model.data["extra"], **extra},
        )


class Generate(ImageStage):
    """Draw labelled images from a trained flow.

    Writes them in the on-disk format of data sets. Resumes if stopped.
    """

    command = "generate"
    places = (GENERATED,)
    product = "generated images"
    inputs = {"model": tuple(MODEL_FILES.values())}
    blocks = {"per_class": "generation.per_class", "batch_size": "generation.batch_size"}

    temperature: PositiveFloat = 1.0
    """scale of the deviations from the class means"""
    per_class: PositiveInt = 5000
    batch_size: PositiveInt = 1000

    def list_needs(self, planned: Planned, wildcards: Wildcards) -> Needs:
        """Return the model."""
        return {"model": [need_model(wildcards)]}

    def run(self) -> None:
        """Sample images, and write them batch by batch."""
        import numpy as np

        from nfpi.model import ClassConditionalFlow
        from nfpi.runtime.device import make_device
        from nfpi.sampling import balanced_labels, sample_images

        model = ClassConditionalFlow.read(self.model)
        labels = balanced_labels(model.prior.num_classes, self.per_class)
        about = {"temperature": self.temperature, "seed": self.seed}
        with self.open_writer(model, len(labels), model.data["name"], "generated", **about) as writer:
            done = writer.rows.first_missing // self.batch_size
            places = np.arange(len(labels))[done * self.batch_size :]
            for images, classes in sample_images(
                model.flow.to(make_device().device),
                model.prior,
                labels,
                temperature=self.temperature,
                seed=self.seed,
                batch_size=self.batch_size,
                domain=model.domain,
                start_batch=done,
            ):
                here, places = places[: len(images)], places[len(images) :]
                writer.put(here, images.permute(0, 2, 3, 1).numpy(), classes.numpy())


class Augment(ImageStage):
    """Make latent-augmented variants of training images.

    Writes variants of all images in the on-disk format of data sets. Resumes if stopped.
    """

    command = "augment"
    places = (AUGMENTED,)
    product = "augmented images"
    inputs = {"data": list_meta_files("train"), "model": tuple(MODEL_FILES.values())}

    data: Path
    """folder of the splits; the variants are written in the order of its training images"""
    nfa: NfaConfig = NfaConfig()
    displacement: Displacement = "mix"
    """mix: move each latent towards another of its class (NFA); noise: by the same distance in a random direction"""

    @classmethod
    def select_options(cls, planned: Planned, wildcards: Wildcards) -> dict[str, Any]:
        """Return the options of a job except paths."""
        displacement = "noise" if wildcards["variants"] == VARIANTS["noise"] else "mix"
        return super().select_options(planned, wildcards) | {"displacement": displacement}

    def list_needs(self, planned: Planned, wildcards: Wildcards) -> Needs:
        """Return the splits and the model."""
        splits = need_splits(planned, wildcards["dataset"], wildcards["seed"])
        return {"data": [splits], "model": [need_model(wildcards)]}

    def run(self) -> None:
        """Make variants class by class, and write them batch by batch."""
        import numpy as np

        from nfpi.augmentation import augment_images
        from nfpi.data.store import read_image_set
        from nfpi.model import ClassConditionalFlow
        from nfpi.model.files import require_classes
        from nfpi.runtime.device import make_device

        model = ClassConditionalFlow.read(self.model)
        train = read_image_set(self.data / "train")
        require_classes(train.classes, model.classes, self.data)
        variants = self.nfa.variants
        about = self.nfa.model_dump(exclude={"batch_size"}) | {"seed": self.seed, "of": train.meta["sha256"]}
        if self.displacement != "mix":
            about["displacement"] = self.displacement
        with (
            self.open_writer(model, len(train) * variants, train.meta["name"], "augmented", **about) as writer,
            tqdm(total=len(train), desc="augment", unit="image", disable=None) as progress,
        ):
            missing = np.flatnonzero(~writer.rows.written.reshape(-1, variants).all(1))
            progress.update(len(train) - len(missing))
            for indices, images in augment_images(
                model.flow.to(make_device().device),
                train,
                self.nfa,
                seed=self.seed,
                domain=model.domain,
                indices=missing,
                displacement=self.displacement,
            ):
                places = indices[:, None] * variants + np.arange(variants)
                labels = train.labels[indices].repeat(variants)
                writer.put(places.ravel(), images.flatten(0, 1).permute(0, 2, 3, 1).numpy(), labels)
                progress.update(len(indices))
        logger.info("made %d variants of each of %d images", variants, len(train))
