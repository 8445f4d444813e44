"""Preparation of train, validation and test sets on disk from a source."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
from sklearn.model_selection import train_test_split

from nfpi.config.base import Split
from nfpi.config.datasets import DataError, DatasetConfig
from nfpi.data.sources.registry import SourceImages, load_source
from nfpi.data.store import MAY_BE_EMPTY
from nfpi.data.writer import replace_folder, write_image_set

FEWEST_PER_CLASS: dict[Split, int] = {"train": 2, "validation": 1, "test": 1}
"""minimum number of images per class in each split; a variance needs two"""
OUTPUTS = (*get_args(Split), "sources.npz")
"""contents of the folder of the splits; the last by earlier versions"""
SEED_FOLDERS = "seed=*"
"""pattern of the subfolders with the splits of single seeds (`split_seed: per_seed`)"""

Assignment = dict[Split, tuple[Split, np.ndarray]]
"""For each split, the split of the source that it is taken from, and sorted indices into the latter."""


def prepare_dataset(name: str, config: DatasetConfig, output: Path, download_folder: Path) -> None:
    """Write `output`/{train,validation,test}, either all or none, as :func:`assign_splits` assigns the images.

    Args:
        name: name of the data set.
        config: settings of the data set.
        output: folder of the three sets; existing ones are replaced.
        download_folder: folder of downloads.

    Raises:
        DataError: the source cannot be read, a class has too few images in a split, or the config has a vae.
    """
    if config.vae is not None:
        raise DataError(f"{name}: expected a data set of pixels, received one with a vae (encode_data writes those)")
    source = load_source(config, download_folder)
    _check_expected(name, config, source)
    assigned = assign_splits(name, config, {split: y for split, (_, y) in source.splits.items()}, source.classes)
    settings = make_extra(config, assigned)
    with replace_folder(output, OUTPUTS, kept=SEED_FOLDERS) as partial:
        for split, (origin, chosen) in assigned.items():
            images, labels = (array[chosen] for array in source.splits[origin])
            write_image_set(partial / split, images, labels, source.classes, name=name, split=split, **settings)


def _check_expected(name: str, config: DatasetConfig, source: SourceImages) -> None:
    """Raise DataError if the settings `classes` and `shape`, which determine λ, are not those of the images."""
    found = {"classes": len(source.classes), "shape": source.splits["train"][0].shape[1:]}
    for key, expected in {"classes": config.num_classes, "shape": config.shape}.items():
        if expected not in (None, found[key]):
            raise DataError(f"datasets.{name}.{key}: expected {expected}, received {found[key]}: correct the setting")


def make_extra(config: DatasetConfig, assigned: Assignment) -> dict[str, Any]:
    """Make `extra` of `meta.json`: settings, and `held_out`, the share held out for each split the source lacks."""
    held_out = {split: share for split, share in _get_held_out_shares(config).items() if assigned[split][0] == "train"}
    return {**config.model_dump(include={"source", "split_seed", "flip", "refit"}), "held_out": held_out}


def _get_held_out_shares(config: DatasetConfig) -> dict[Split, float]:
    """Return the share of training images to hold out for each split, if the source lacks it; the test set first."""
    shares: dict[Split, float] = {"test": config.test_fraction}
    return shares if config.refit else shares | {"validation": config.validation_fraction}


def assign_splits(
    name: str, config: DatasetConfig, labels: Mapping[Split, np.ndarray], classes: list[str]
) -> Assignment:
    """Assign the images of a source to train, validation and test.

    Splits that the source lacks are held out of its training images, stratified and seeded by `split_seed`: first the
    test set, then the validation set, which is empty with `refit`. Then the limits per class are applied by a random
    choice with the same seed. Images keep the order of the source within each split.

    Args:
        name: name of the data set.
        config: fractions, limits and seed.
        labels: labels (N,) of each split of the source.
        classes: names of the K classes.

    Raises:
        DataError: a class has too few images in a split, or `refit` is set and the source has a validation split.
    """
    if config.refit and "validation" in labels:
        raise DataError(
            f"{name}: refit: expected a source without a validation split, received {len(labels['validation'])} "
            "validation images (move them to its training images)"
        )
    splits: Assignment = {split: (split, np.arange(len(some))) for split, some in labels.items()}
    for split, fraction in _get_held_out_shares(config).items():
        if split not in splits:
            train = splits["train"][1]
            where = f"{name}: {split}_fraction"
            kept, held_out = _hold_out(where, labels["train"][train], fraction, config.split_seed)
            splits["train"], splits[split] = ("train", train[kept]), ("train", train[held_out])
    if config.refit:
        splits[MAY_BE_EMPTY] = ("train", np.empty(0, np.int64))
    limits: dict[Split, int | None] = {"train": config.train_per_class, "test": config.test_per_class}
    for split, limit in limits.items():
        if limit is not None:
            origin, indices = splits[split]
            chosen = _choose_per_class(labels[origin][indices], limit, config.split_seed)
            splits[split] = origin, indices[chosen]
    for split, (origin, indices) in splits.items():
        if split == MAY_BE_EMPTY and config.refit:
            continue
        _check_counts(name, split, labels[origin][indices], classes)
    return splits


def _hold_out(where: str, labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split indices into kept and held-out ones, both sorted; class shares are exact to within one image."""
    try:
        kept, held_out = train_test_split(
            np.arange(len(labels)), test_size=fraction, stratify=labels, random_state=seed
        )
    except ValueError as error:  # too few images
        raise DataError(f"{where}: {error}") from None
    return np.sort(kept), np.sort(held_out)


def _choose_per_class(labels: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """Choose up to `limit` random images of each class; returns sorted indices."""
    generator = np.random.default_rng(seed)
    members = [generator.permutation(np.flatnonzero(labels == k))[:limit] for k in np.unique(labels)]
    return np.sort(np.concatenate([np.empty(0, np.int64), *members]))


def _check_counts(name: str, split: Split, labels: np.ndarray, classes: list[str]) -> None:
    counts = np.bincount(labels, minlength=len(classes))
    smallest = int(counts.argmin())
    if counts[smallest] < FEWEST_PER_CLASS[split]:
        raise DataError(
            f"{name}: expected at least {FEWEST_PER_CLASS[split]} {split} images of class '{classes[smallest]}', "
            f"received {counts[smallest]}"
        )
