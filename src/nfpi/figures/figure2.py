"""Figure 2: training images beside their latent-augmented variants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from nfpi.config.base import PositiveInt, Settings
from nfpi.config.flows import NfaConfig
from nfpi.config.settings import Config
from nfpi.figures.drawn import Drawn, FigureInputs, list_split_files, register_figure
from nfpi.figures.image_grid import FlowFigure, draw_image_grid, to_pixels
from nfpi.runs import Layout

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from nfpi.data.store import ImageSet
    from nfpi.model import ClassConditionalFlow


class AugmentationFigure(FlowFigure):
    """Figure 2: images beside their latent-augmented variants."""

    title = "figure 2"
    caption = (
        "Training images (left) and latent-augmented variants of them (right): each latent moves a share s of the way "
        "towards another latent of its class, in the span of the class's leading PCA axes. Below a variant: Δ, the "
        "root-mean-square difference from the original in 8-bit levels. For a flow on latents of an autoencoder, "
        "all images, including the originals, are outputs of the decoder."
    )
    has_table = True

    classes: Annotated[list[str], Field(min_length=1)]
    """names of classes, or their indices as strings"""
    images_per_class: PositiveInt = 1
    variants: PositiveInt = 3

    def files(self, config: Config, layout: Layout) -> dict[str, list[str]]:
        """Return the files of the training images and of the model."""
        return {
            "train": list_split_files(config, layout, self.dataset, "train"),
            "model": self.list_model_files(config, layout),
        }

    def reads(self, config: Config) -> dict[str, Settings]:
        """Return the settings of latent augmentation."""
        return {"nfa": config.for_dataset(self.dataset).nfa}

    def describe(self, config: Config) -> str:
        """Complete the caption with the strength of the augmentation, and the run."""
        nfa = config.for_dataset(self.dataset).nfa
        step = f"s = {nfa.strength:g}"
        if nfa.law == "beta":
            step += f" u, u ~ Beta({nfa.concentration:g}, {nfa.concentration:g})"
        return f"{self.caption} {self.describe_run(config)}: {nfa.axes} axes, {step}."


@register_figure("figure2", AugmentationFigure)
def draw(settings: AugmentationFigure, inputs: FigureInputs) -> Drawn:
    """Draw training images beside their latent-augmented variants.

    Raises:
        ValueError: the images have other classes than the flow, or lack a class to be shown.
        Diverged: the fit of the class Gaussians diverged.
    """
    from nfpi.data.store import read_image_set
    from nfpi.model import ClassConditionalFlow
    from nfpi.model.files import require_classes
    from nfpi.runtime.device import make_device

    model = ClassConditionalFlow.read(inputs.folder("model")).to(make_device().device)
    train = read_image_set(inputs.folder("train"))
    require_classes(train.classes, model.classes, inputs.folder("train"))
    nfa = NfaConfig.model_validate(inputs.settings["nfa"])
    images, classes = augment_random_images(model, train, settings, nfa)
    changes = compute_rms_changes(images)
    return Drawn({"figure2": draw_augmentations(images, classes, changes)}, _tabulate_changes(classes, changes))


def augment_random_images(
    model: ClassConditionalFlow,
    image_set: ImageSet,
    settings: AugmentationFigure,
    nfa: NfaConfig,
) -> tuple[np.ndarray, list[str]]:
    """Choose images at random and make latent-augmented variants of them.

    Args:
        model: trained flow, whose seed determines the choice of images and the variants.
        image_set: the training images.
        settings: classes to show, number of images per class, and number of variants per image.
        nfa: settings of latent augmentation, except for the number of variants.

    Returns:
        Images (images, 1 + variants, H, W, C), uint8, the original first; and the class of each image.

    Raises:
        DataError: unknown class, or a class with too few images.
    """
    import torch

    from nfpi.augmentation import augment_images
    from nfpi.config.datasets import DataError
    from nfpi.runtime.randomness import derive_seed

    indices, names = [], []
    for name in settings.classes:
        label = _find_class_index(image_set, name)
        members = np.flatnonzero(image_set.labels == label)
        if len(members) < settings.images_per_class:
            raise DataError(f"class '{name}': expected {settings.images_per_class} images, received {len(members)}")
        generator = np.random.default_rng(derive_seed(model.seed, "figure", label))
        indices += generator.choice(members, settings.images_per_class, replace=False).tolist()
        names += [image_set.classes[label]] * settings.images_per_class
    batches = augment_images(
        model.flow,
        image_set,
        nfa.model_copy(update={"variants": settings.variants}),
        seed=model.seed,
        domain=model.domain,
        indices=np.array(indices),
    )
    made = {index: some for places, block in batches for index, some in zip(places.tolist(), block, strict=True)}
    variants = torch.stack([made[index] for index in indices])
    originals = torch.from_numpy(image_set.images[indices]).permute(0, 3, 1, 2)
    return to_pixels(torch.cat([originals.unsqueeze(1), variants], 1), model.data, model.device), names


def compute_rms_changes(images: np.ndarray) -> np.ndarray:
    """Compute the root mean square, over pixels and channels, of the difference between each variant and its original.

    Args:
        images: (images, 1 + variants, H, W, C), uint8, the original first.

    Returns:
        (images, variants), in 8-bit levels.
    """
    difference = images[:, 1:].astype(np.float64) - images[:, :1]
    changes: np.ndarray = np.sqrt(np.square(difference).mean((2, 3, 4)))
    return changes


def draw_augmentations(images: np.ndarray, classes: Sequence[str], changes: np.ndarray) -> Figure:
    """Draw images beside their latent-augmented variants, with the size of the changes.

    Args:
        images: (images, 1 + variants, H, W, C), uint8, the original first.
        classes: names of the images' classes.
        changes: root mean squares, (images, variants), in 8-bit levels.

    Raises:
        FigureError: inconsistent numbers of rows, or images that are not uint8.
    """
    variants = range(1, images.shape[1])
    columns = ["original", *(f"variant {number}" if len(variants) <= 4 else str(number) for number in variants)]
    notes = [["", *(f"Δ {change:.3g}" for change in image_changes)] for image_changes in changes]
    return draw_image_grid(images, classes, columns, "Class", "", notes=notes)


def _tabulate_changes(classes: Sequence[str], changes: np.ndarray) -> pd.DataFrame:
    """Return the changes as a table, one row per variant."""
    import pandas as pd

    image, variant = np.indices(changes.shape).reshape(2, -1) + 1
    names = np.repeat(np.array(classes, dtype=object), changes.shape[1])
    return pd.DataFrame({"class": names, "image": image, "variant": variant, "rms_change": changes.ravel()})


def _find_class_index(image_set: ImageSet, name: str) -> int:
    """Return the index of a class, given its name or the index itself as a string."""
    from nfpi.config.datasets import DataError

    indices = {str(index): index for index in range(image_set.num_classes)}
    indices |= {known: index for index, known in enumerate(image_set.classes)}
    if name not in indices:
        raise DataError(
            f"classes: expected a name or an index of the {image_set.num_classes} classes of "
            f"{image_set.meta['name']}, received '{name}'"
        )
    return indices[name]
