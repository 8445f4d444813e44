"""Run the stages that make images with a flow: samples and latent-augmented variants."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from nfpi.augmentation import PrincipalAxes, augment_images, compute_class_axes
from nfpi.config import FLOWS
from nfpi.data.store import read_image_set
from nfpi.data.writer import ImageSetWriter
from nfpi.model.trained import WEIGHTS, TrainedFlow
from nfpi.results.recorded.records import config_hash
from nfpi.runtime.devices import make_device
from nfpi.runtime.files import file_digest
from nfpi.sampling import balanced_labels, sample_images
from nfpi.stages.fingerprints import compute_code_digest
from nfpi.stages.options import Augment, Generate

logger = logging.getLogger(__name__)


def generate(stage: Generate) -> None:
    """Sample images, and write them batch by batch."""
    model = TrainedFlow.read(stage.model)
    device, domain = make_device().device, model.domain
    labels = balanced_labels(model.prior.num_classes, stage.per_class)
    channels, height, width = model.flow.shape
    settings = stage.model_dump(include={"temperature", "per_class", "batch_size", "seed"})
    with ImageSetWriter(
        stage.output,
        len(labels),
        (height, width, channels),
        model.classes,
        name=model.data["name"],
        split="generated",
        dtype=domain.dtype,
        fingerprint=config_hash({**settings, **_compute_model_digests(model, stage.model)}),
        **{**model.data["extra"], "temperature": stage.temperature, "seed": stage.seed},
    ) as writer:
        done = writer.first_missing // stage.batch_size
        places = np.arange(len(labels))[done * stage.batch_size :]
        for images, classes in sample_images(
            model.flow.to(device),
            model.prior,
            labels,
            temperature=stage.temperature,
            seed=stage.seed,
            batch_size=stage.batch_size,
            domain=domain,
            device=device,
            start_batch=done,
        ):
            here, places = places[: len(images)], places[len(images) :]
            writer.put(here, images.permute(0, 2, 3, 1).numpy(), classes.numpy())


def augment(stage: Augment) -> None:
    """Make variants class by class, and write them batch by batch.

    The share of each class's variance that its principal axes explain is recorded beside the images; to compute this
    share, a resumed stage encodes the images of finished classes again.
    """
    model = TrainedFlow.read(stage.model)
    train = read_image_set(stage.data / "train")
    model.require_classes(train.classes, stage.data)
    device, domain, variants = make_device().device, model.domain, stage.nfa.variants
    channels, height, width = train.shape
    fingerprinted = {"nfa": stage.nfa.model_dump(), "seed": stage.seed, "data": train.meta["sha256"]}
    recorded = stage.nfa.model_dump(exclude={"batch_size"}) | {"seed": stage.seed, "of": train.meta["sha256"]}
    if stage.displacement != "mix":
        for record in (fingerprinted, recorded):
            record["displacement"] = stage.displacement
    axes: dict[int, PrincipalAxes] = {}
    with (
        ImageSetWriter(
            stage.output,
            len(train) * variants,
            (height, width, channels),
            train.classes,
            name=train.meta["name"],
            split="augmented",
            dtype=domain.dtype,
            fingerprint=config_hash({**fingerprinted, **_compute_model_digests(model, stage.model)}),
            **{**model.data["extra"], **recorded},
        ) as writer,
        tqdm(total=len(train), desc="augment", unit="image", disable=None) as progress,
    ):
        missing = np.flatnonzero(~writer.written.reshape(-1, variants).all(1))
        progress.update(len(train) - len(missing))
        flow = model.flow.to(device)
        for indices, images in augment_images(
            flow,
            train,
            stage.nfa,
            seed=stage.seed,
            domain=domain,
            device=device,
            indices=missing,
            displacement=stage.displacement,
            on_axes=axes.__setitem__,
        ):
            places = indices[:, None] * variants + np.arange(variants)
            labels = train.labels[indices].repeat(variants)
            writer.put(places.ravel(), images.flatten(0, 1).permute(0, 2, 3, 1).numpy(), labels)
            progress.update(len(indices))
        for label in np.unique(train.labels).tolist():
            if label not in axes:
                axes[label] = compute_class_axes(
                    flow, train, label, stage.nfa, seed=stage.seed, domain=domain, device=device
                )
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
    return {"model": file_digest(folder / WEIGHTS), "code": compute_code_digest(FLOWS[model.flow.kind])}
