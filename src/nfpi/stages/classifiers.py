"""Run the stages that train and test classifiers."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import torch

from nfpi.classifiers.data import ClassifierData, concatenate, resize_images
from nfpi.classifiers.preprocessing import channel_statistics
from nfpi.classifiers.real_labels import find_real_labels
from nfpi.classifiers.registry import build_classifier, build_trained, get_preprocessing, stored_preprocessing
from nfpi.classifiers.scoring import score_classifier
from nfpi.classifiers.training import train_classifier
from nfpi.classifiers.variants import Variants
from nfpi.classifiers.weights import load_weights
from nfpi.config import CLASSIFIERS, Augmentation, ClassifierConfig
from nfpi.config.metrics import GENERATED_PREFIX, list_computed_metrics
from nfpi.data.autoencoder import load_decoder
from nfpi.data.pixels import Pixels, open_pixels
from nfpi.data.store import META, read_image_set
from nfpi.results.metrics.measures import compute_metrics, per_class_accuracy
from nfpi.results.recorded.logs import write_log
from nfpi.results.recorded.predictions import write_predictions
from nfpi.results.recorded.records import config_hash, read_record, write_metrics
from nfpi.runs import METRICS_FILE, Run
from nfpi.runtime.checkpoints import Checkpoints
from nfpi.runtime.devices import describe_device, make_device
from nfpi.runtime.divergence import Diverged, TrainingDiverged, mark_diverged, raise_if_marked
from nfpi.runtime.files import file_digest, run_after_commit, written_together
from nfpi.runtime.randomness import derive_seed
from nfpi.runtime.tensors import load_tensors, save_tensors
from nfpi.stages.fingerprints import compute_code_digest
from nfpi.stages.options import TestClassifier, TrainClassifier

logger = logging.getLogger(__name__)

_VALIDATION_CNN_ACC, _VALIDATION_TOP1 = "validation_cnn_acc", "validation_top1"
"""names of the validation accuracy of classifiers trained on generated and on real images"""


def train(stage: TrainClassifier) -> None:
    """Train a classifier on the images given by `train_on`."""
    began = time.monotonic()
    _check_options(stage)
    for folder in (stage.generated, stage.augmented):
        if folder is not None:
            raise_if_marked(folder / META)
    config = stage.classifier
    device = make_device(config.precision)
    data, digests, temperature = _read_data(stage, device.device)
    channels, height, _ = data.train.shape
    size = {"num_classes": data.train.num_classes, "in_channels": channels, "image_size": height}
    torch.manual_seed(derive_seed(stage.seed, config.model))
    model = build_classifier(config, **size)
    if stage.start_from is not None:
        load_weights(model, load_tensors(stage.start_from)[0], stage.start_from)
    checkpoints = Checkpoints(stage.output, _compute_fingerprint(stage, digests), config.checkpoint_minutes)
    try:
        trained = train_classifier(model, data, stage.seed, device, checkpoints)
    except TrainingDiverged as fault:
        fault.context = {"seed": stage.seed, "name": stage.name, "temperature": temperature}
        with written_together():
            mark_diverged([stage.get_path("model"), stage.get_path("metrics")], fault)
            write_log(stage.get_path("history"), fault.log)
        run_after_commit(checkpoints.clear)
        logger.warning("%s", fault)
        return
    settings = {
        "name": stage.name,
        "classifier": config.model_dump(mode="json") | {"precision": device.precision},
        "augmentation": _name_augmentation(stage),
        "size": size,
        "temperature": temperature,
        "images": len(data.train),
    }
    if config.normalization == "dataset":
        settings["normalization"] = {"mean": list(data.preprocessing.mean), "std": list(data.preprocessing.std)}
    with written_together():
        save_tensors(stage.get_path("model"), trained.model.state_dict(), {"seed": stage.seed, **settings})
        write_log(stage.get_path("history"), trained.log)
        write_metrics(
            stage.get_path("metrics"),
            {} if trained.validation_acc is None else {_name_validation_metric(config): trained.validation_acc},
            run=None,
            n=len(data.validation),
            seed=stage.seed,
            settings=settings,
            device=describe_device(device.device),
            seconds=time.monotonic() - began,
        )
    run_after_commit(checkpoints.clear)


def _name_validation_metric(config: ClassifierConfig) -> str:
    """Return the name of the validation accuracy, which depends on the training images."""
    return _VALIDATION_TOP1 if config.train_on == "real" else _VALIDATION_CNN_ACC


def _name_augmentation(stage: TrainClassifier) -> Augmentation:
    """Return the name that experiments give to the training augmentation, e.g. `standard+nfa`."""
    if stage.augmented is None:
        return stage.augmentation
    noisy = read_image_set(stage.augmented, verify=False).meta["extra"].get("displacement") == "noise"
    if stage.augmentation == "none":
        return "noise" if noisy else "nfa"
    return "standard+noise" if noisy else "standard+nfa"


def _check_options(stage: TrainClassifier) -> None:
    """Raise ValueError if folders and `train_on` contradict each other."""
    train_on = stage.classifier.train_on
    if train_on == "real" and stage.generated is not None:
        raise ValueError("--generated: expected no folder with train_on 'real', received one")
    if train_on != "real" and stage.generated is None:
        raise ValueError(f"--generated: expected a folder with train_on '{train_on}', received none")
    if train_on != "real" and stage.augmented is not None:
        raise ValueError(f"--augmented: expected train_on 'real' for latent augmentation, received '{train_on}'")


def _read_data(stage: TrainClassifier, device: torch.device) -> tuple[ClassifierData, dict[str, Any], float | None]:
    """Read the images; also return the digests of their files, and the temperature of generated images."""
    config, preprocessing = stage.classifier, get_preprocessing(stage.classifier)
    digests: dict[str, Any] = {}
    parts, temperature = [], None
    if config.train_on != "generated":
        parts.append(open_pixels(stage.data / "train"))
        digests["real"] = parts[-1].meta["sha256"]
    if stage.generated is not None:
        generated = read_image_set(stage.generated)
        if generated.images.dtype != "uint8":
            raise ValueError(f"{stage.generated}: expected pixels, received latents ({generated.images.dtype})")
        temperature = generated.meta["extra"].get("temperature")
        digests["generated"] = generated.meta["sha256"]
        parts.append(Pixels(generated))
    combined = parts[0] if len(parts) == 1 else Pixels(concatenate(parts[0].image_set, parts[1].image_set))
    train = resize_images(combined, config.image_size, preprocessing)
    validation = resize_images(open_pixels(stage.data / "validation"), config.image_size, preprocessing)
    variants = None
    if stage.augmented is not None:
        stored = read_image_set(stage.augmented)
        digests["augmented"] = stored.meta["sha256"]
        if stored.images.dtype == "uint8":
            pixels = resize_images(Pixels(stored), config.image_size, preprocessing)
            variants = Variants.from_image_set(pixels, train, None, digests["real"])
        else:
            variants = Variants.from_image_set(stored, train, load_decoder(stored.meta, device), digests["real"])
    if config.normalization == "dataset":
        preprocessing = get_preprocessing(config, channel_statistics(train))
    standard = config.standard if stage.augmentation == "standard" else None
    return ClassifierData(train, validation, config, preprocessing, standard, variants), digests, temperature


def _compute_fingerprint(stage: TrainClassifier, digests: dict[str, Any]) -> str:
    """Return the fingerprint of everything that the trained weights depend on."""
    files = {"weights": stage.classifier.weights, "start_from": stage.start_from}
    return config_hash(
        {
            "classifier": stage.classifier.select_result_settings(),
            "augmentation": stage.augmentation,
            "code": compute_code_digest(CLASSIFIERS[stage.classifier.model]),
            "seed": stage.seed,
            "files": {name: file_digest(path) for name, path in files.items() if path is not None},
            "images": digests,
        }
    )


def test(stage: TestClassifier) -> None:
    """Choose a classifier by its validation accuracy, and test it."""
    began = time.monotonic()
    run = Run.from_json(stage.run) if stage.run is not None else None
    accuracies = _read_validation_accuracies(stage)
    best = max(accuracies, key=lambda folder: accuracies[folder] or 0.0)
    weights, header = load_tensors(best / "model.safetensors")
    config, model = build_trained(weights, header, best / "model.safetensors")
    validation_metric = _name_validation_metric(config)
    pixels = open_pixels(stage.data / "test")
    preprocessing = stored_preprocessing(config, header, best / "model.safetensors")
    images = resize_images(pixels, config.image_size, preprocessing)
    if images.num_classes != header["size"]["num_classes"]:
        expected, received = header["size"]["num_classes"], images.num_classes
        raise ValueError(f"{stage.data}: expected {expected} classes as in {best}, received {received}")
    device = make_device().device
    scores = score_classifier(
        model.to(device),
        images,
        preprocessing,
        device,
        real_labels=find_real_labels(pixels) if stage.real_labels else None,
        workers=config.workers,
    )
    computed = compute_metrics(list_computed_metrics(stage.metrics), scores.log_prob, scores.labels)
    if validation_metric == _VALIDATION_CNN_ACC:
        computed = {f"{GENERATED_PREFIX}{name}": value for name, value in computed.items()}
        metrics = {"cnn_acc": scores.top1, "temperature": header["temperature"]}
    else:
        metrics = {"top1": scores.top1, "top5": scores.top5}
        metrics |= {"real_top1": scores.real_top1, "real_top5": scores.real_top5}
    values = {name: value for name, value in (metrics | computed).items() if value is not None}
    are_distinct = len({folder.name for folder in accuracies}) == len(accuracies)
    names = {folder: folder.name if are_distinct else folder.as_posix() for folder in accuracies}
    with written_together():
        write_predictions(stage.get_path("predictions"), scores.labels, scores.log_prob)
        write_metrics(
            stage.get_path("metrics"),
            values if accuracies[best] is None else values | {validation_metric: accuracies[best]},
            run=run,
            n=len(images),
            seed=header["seed"],
            settings={**header, "compared": {names[folder]: value for folder, value in accuracies.items()}},
            device=describe_device(device),
            seconds=time.monotonic() - began,
            per_class_accuracy=per_class_accuracy(scores.log_prob, scores.labels).tolist(),
        )
    logger.info("top-1 %.2f %% on %d test images", scores.top1, len(images))


def _read_validation_accuracies(stage: TestClassifier) -> dict[Path, float | None]:
    """Return the validation accuracy of each candidate that did not diverge.

    The accuracy of a single candidate may be None, if there are no validation images.

    Raises:
        Diverged: all candidates diverged.
    """
    accuracies: dict[str, dict[Path, float | None]] = {}
    divergences: list[Diverged] = []
    for folder in stage.candidates:
        path = folder / METRICS_FILE
        try:
            raise_if_marked(path)
        except Diverged as fault:
            logger.warning("%s: %s", folder, fault)
            divergences.append(fault)
            continue
        record = read_record(path)
        metrics = record["metrics"]
        name = next((name for name in (_VALIDATION_CNN_ACC, _VALIDATION_TOP1) if name in metrics), None)
        if name is None and record.get("n") == 0 and len(stage.candidates) == 1:
            return {folder: None}
        if name is None:
            raise ValueError(f"{path}: expected {_VALIDATION_CNN_ACC} or {_VALIDATION_TOP1}, received neither")
        accuracies.setdefault(name, {})[folder] = metrics[name]
    if divergences and not accuracies:
        raise divergences[0]
    if len(accuracies) != 1:
        raise ValueError(f"candidates: expected one kind of accuracy, received {' and '.join(accuracies)}")
    return accuracies.popitem()[1]
