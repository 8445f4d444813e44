"""Initial state, fit of the Gaussians and training of a flow in one call, in memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import RLock
from typing import Any

import numpy as np
import torch

from nfpi.config.base import NonNegativeFloat, Seed, Settings
from nfpi.config.flows import FLOWS, FlowBlock
from nfpi.config.priors import PRIORS, LearnedMethod, PriorBlock
from nfpi.config.training import TrainingConfig
from nfpi.data.store import ImageSet
from nfpi.flows.image_flow import ImageFlow
from nfpi.model.inputs import are_class_names, check_images, check_labels, to_array
from nfpi.model.settings import choose_flow, choose_prior, choose_training, parse_settings
from nfpi.priors.fixed_point import FixedPointResult
from nfpi.priors.gaussian import GaussianPrior
from nfpi.priors.registry import fit
from nfpi.runtime.allocation import require_allocated_gpu
from nfpi.runtime.defaults import standard_defaults
from nfpi.runtime.device import Device
from nfpi.runtime.devices import make_device, prepare_process
from nfpi.runtime.divergence import Diverged
from nfpi.runtime.precision import choose_precision, full_precision, outside_autocast
from nfpi.training.batches import TrainingData
from nfpi.training.flow import InitialState, continue_training, start_training
from nfpi.training.state import TrainingState

Validation = float | tuple[Any, Any] | None
"""Share of the images to hold out, (images, labels), or None."""
_FIT = RLock()
"""held by a running fit, as fits change settings and generators of torch that all threads share"""
_ADVICE_ON_NUMBERS = "; if the numbers are names of classes, pass [str(label) for label in labels]"
"""hint for integer labels that are not the indices 0 to K − 1"""
_FEW = 10
"""Number of images of a class below which a divergence may be due to their small number."""


def _renew_lock() -> None:
    """Replace the lock in a forked process, where a thread that held it at the fork does not exist to release it."""
    global _FIT
    _FIT = RLock()


os.register_at_fork(after_in_child=_renew_lock)


class _Plain(Settings):
    """Scalar arguments of a fit."""

    weight: NonNegativeFloat
    flip: bool
    name: str | None
    seed: Seed


def fit_model(
    images: Any,
    labels: Any,
    *,
    weight: float,
    validation: Validation,
    epochs: int | None,
    classes: Sequence[str] | None,
    flow: str | Mapping[str, Any] | FlowBlock | None,
    training: Mapping[str, Any] | TrainingConfig | None,
    prior: str | Mapping[str, Any] | PriorBlock | None,
    flip: bool,
    name: str | None,
    seed: int,
    device: torch.device | str | None,
    progress: bool,
) -> tuple[ImageFlow, GaussianPrior, dict[str, Any]]:
    """Fit a flow and its Gaussians; see :meth:`nfpi.ClassConditionalFlow.fit`.

    Returns:
        the flow, with averaged weights; its prior; and the config of the model.
    """
    plain = parse_settings(_Plain, {"weight": weight, "flip": flip, "name": name, "seed": seed})
    seed = plain.seed
    train, held_out = make_sets(images, labels, classes, validation, flip=plain.flip, name=plain.name, seed=seed)
    _, height, width = train.shape
    block = choose_flow(flow, height, width)
    if training is None or isinstance(training, Mapping):
        training = {**block.training, **(training or {})}
    config = choose_training(training, epochs, block.kind, max(height, width), len(train))
    if config.augmentation == "flip" and not plain.flip:
        raise ValueError("flip: expected True with augmentation 'flip', which otherwise has no effect, received False")
    method = choose_prior(prior)
    description = {
        "kind": block.kind,
        "shape": list(train.shape),
        "settings": FLOWS.extract_settings(block).model_dump(mode="json"),
    }
    with _training_device(device, config.precision) as place:
        data = TrainingData(train, held_out, config, place.device)
        try:
            initial = start_training(data, description, method.start, seed, place, progress=progress)
            state, final, prior_config = _train(initial, data, place, method, plain.weight, progress)
        except Diverged as fault:
            fault.message = f"{fault}{_describe_class(fault.class_index, train)}"
            raise
    last = state.log[-1]
    validated = {
        "n": None if held_out is None else len(held_out),
        "nf_acc": last["validation_nf_acc"],
        "bits_per_dim": last["validation_bits_per_dim"],
    }
    config_of_model = {
        "seed": seed,
        "start": method.start,
        "step": state.step,
        "prior": prior_config,
        "training": config.model_dump() | {"precision": place.precision},
        "data": {**{key: train.meta[key] for key in ("name", "classes", "dtype", "extra")}, "n": len(train)},
        **({} if held_out is None else {"validation": validated}),
    }
    return state.averaged_flow, final, config_of_model


def _train(
    initial: InitialState, data: TrainingData, device: Device, method: PriorBlock, weight: float, progress: bool
) -> tuple[TrainingState, GaussianPrior, dict[str, Any]]:
    """Fit the Gaussians and train the remaining epochs under them, or learn them along with the flow.

    Returns:
        the final state, the Gaussians, and their description for the config.
    """
    settings = PRIORS.extract_settings(method)
    prior_config: dict[str, Any] = {
        "lambda": weight,
        "method": method.method,
        "settings": method.model_dump(mode="json"),
    }
    prior, learned = initial.prior, None
    if PRIORS[method.method].traits["learned"]:
        learned = LearnedMethod.from_block(method, weight)
    else:
        fitted = fit(method.method, initial.statistics, initial.prior, weight, settings)
        if isinstance(fitted, FixedPointResult):
            prior_config |= {"iterations": fitted.iterations, "converged": fitted.converged}
            prior = fitted.prior
        else:
            prior = fitted
    state = continue_training(initial.state, prior, data, device, learned=learned, progress=progress)
    final = state.learner.prior if state.learner is not None else prior
    return state, final, prior_config


def _describe_class(index: int | None, train: ImageSet) -> str:
    """Return the end of a message of divergence: the name of class `index`, and the smallest class if it is small."""
    if index is None:
        return ""
    counts = np.bincount(train.labels, minlength=len(train.classes))
    smallest = int(counts.argmin())
    name = f"; class {index} is '{train.classes[index]}'" if train.classes[index] != str(index) else ""
    few = f"; class '{train.classes[smallest]}' has only {counts[smallest]} training images"
    return name + (few if counts[smallest] < _FEW else "")


def make_sets(
    images: Any,
    labels: Any,
    classes: Sequence[str] | None,
    validation: Validation,
    *,
    flip: bool,
    name: str | None,
    seed: int,
) -> tuple[ImageSet, ImageSet | None]:
    """Make the training and validation sets of a fit, in memory.

    Raises:
        ValueError: images or labels are empty, of different lengths, or of unknown classes; there are fewer than two
            classes, or one has fewer than two images; `classes` or `validation` is invalid.
    """
    array = check_images(images)
    names = _choose_class_names(labels, classes)
    indices = check_labels(labels, names, len(array))
    meta = {"name": name, "classes": names, "dtype": "uint8", "extra": {"flip": flip}}
    held_out: ImageSet | None = None
    if isinstance(validation, tuple | list):
        if len(validation) != 2:
            raise ValueError(f"validation: expected (images, labels), received {len(validation)} values")
        others = check_images(validation[0], (array.shape[3], *array.shape[1:3]), what="validation images")
        held_out = ImageSet(others, check_labels(validation[1], names, len(others), "validation labels"), meta)
    elif validation is not None:
        if isinstance(validation, bool) or not isinstance(validation, int | float | np.integer | np.floating):
            raise ValueError(
                f"validation: expected a share between 0 and 1, or (images, labels), received {validation!r}"
            )
        # float(np.float32(0.2)) is 0.20000000298…; its text is the 0.2 that was meant
        kept, left = _split(indices, float(str(validation)), seed)
        held_out = ImageSet(array[left], indices[left], meta)
        array, indices = array[kept], indices[kept]
    counts = np.bincount(indices, minlength=len(names))
    if len(names) < 2:
        raise ValueError(f"labels: expected two classes or more, received {len(names)}")
    if counts.min() < 2:
        poorest = int(counts.argmin())
        unused = classes is None and not counts[poorest] and not are_class_names(to_array(labels, "labels"))
        raise ValueError(
            f"labels: expected at least two training images of each class, received {counts[poorest]} of "
            f"'{names[poorest]}'{_ADVICE_ON_NUMBERS if unused else ''}"
        )
    return ImageSet(array, indices, meta), held_out


def _choose_class_names(labels: Any, classes: Sequence[str] | None) -> list[str]:
    """Return the given class names, else the sorted names in the labels, or all indices up to the largest, as text.

    Empty labels, and labels that are neither names nor integers, give an empty list.

    Raises:
        ValueError: `classes` are not two distinct names or more, or an index is negative or not below the number of
            labels.
    """
    if isinstance(classes, Iterable) and not isinstance(classes, str):
        names = [str(name) for name in classes]
        if len(set(names)) != len(names):
            raise ValueError("classes: expected distinct names, received one twice")
        if len(names) < 2:
            raise ValueError(f"classes: expected the names of two classes or more, received {len(names)}")
        return names
    if classes is not None:
        raise ValueError(f"classes: expected the names of the classes, received {classes!r}")
    found = to_array(labels, "labels")
    if found.size and are_class_names(found):
        return sorted(set(map(str, found.ravel().tolist())))
    if found.size and found.dtype.kind in "iu":
        low, high = int(found.min()), int(found.max())
        if low < 0 or high >= found.size:  # K classes need K images or more
            raise ValueError(
                f"labels: expected indices of classes, 0 to K − 1, received {low if low < 0 else high}"
                f"{_ADVICE_ON_NUMBERS}"
            )
        return [str(index) for index in range(high + 1)]
    return []  # rejected by check_labels


def _split(labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split the positions of images into kept and held-out ones, both sorted, stratified by class."""
    from sklearn.model_selection import train_test_split

    if not 0 < share < 1:
        raise ValueError(f"validation: expected a share between 0 and 1, or (images, labels), received {share}")
    try:
        kept, left = train_test_split(
            np.arange(len(labels)), test_size=share, stratify=labels, random_state=seed % 2**32
        )
    except ValueError as error:
        raise ValueError(
            f"validation: expected enough images to hold out {share:g}, received {len(labels)} ({error})"
        ) from None
    return np.sort(kept), np.sort(left)


@contextmanager
def _training_device(device: torch.device | str | None, precision: str) -> Iterator[Device]:
    """Make the device of a fit; afterwards, restore the state of torch.

    This includes the current GPU, and the random generators of the CPU and of the CUDA GPU of the fit. Fits run one at
    a time. Whether gradients are recorded, the precision, and the dtype and device of new tensors are as in a new
    process, whatever the caller has set.
    """
    wanted = None if device is None else torch.device(device)
    if wanted is not None:
        precision = choose_precision(precision, wanted)
        if precision != "32-true":
            raise ValueError(f"device: expected None with precision {precision}, received {wanted}")
    with (
        _FIT,
        _settings_restored(),
        standard_defaults(),
        full_precision(),
        outside_autocast(),
        torch.inference_mode(False),
    ):
        if wanted is None:
            chosen = make_device(precision)
        else:
            if wanted.type == "cuda":
                require_allocated_gpu()
            prepare_process(wanted)
            chosen = Device(wanted)
        gpus = [chosen.device] if chosen.device.type == "cuda" else []
        with torch.random.fork_rng(devices=gpus), torch.enable_grad():
            yield chosen


@contextmanager
def _settings_restored() -> Iterator[None]:
    """Restore, after the context, the current GPU and the settings of torch that a new device changes.

    :func:`full_precision` restores those of TF32.
    """
    gpu = torch.cuda.current_device() if torch.cuda.is_initialized() else None
    deterministic = torch.get_deterministic_debug_mode()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(deterministic)
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
        if gpu is not None:
            torch.cuda.set_device(gpu)
