"""Run the commands that apply a trained model to the user's image files."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from nfpi.config import ConfigError, metric, suggest
from nfpi.data.atomic import replace_folder
from nfpi.data.export import export_imagefolder, make_folder_names
from nfpi.data.own_images import find_images, find_labelled_images, read_images, strip_suffixes
from nfpi.data.store import ImageSet
from nfpi.model.class_conditional import ClassConditionalFlow
from nfpi.model.trained import CONFIG, WEIGHTS
from nfpi.results.statistics.intervals import wilson_interval
from nfpi.runtime.devices import make_device
from nfpi.runtime.files import require_writable, write_atomically, written_together
from nfpi.runtime.manifests import find_product
from nfpi.runtime.randomness import make_generator
from nfpi.stages.options import AugmentFolder, Classify, Sample, Score
from nfpi.stages.printing import format_lines, print_rows

logger = logging.getLogger(__name__)


def classify(command: Classify) -> None:
    """Print or write the prediction for each image.

    Raises:
        DataError: an image is unreadable or has another shape than the model's; nothing is written.
        ConfigError: the output exists, or is one of the files read.
    """
    _require_new(command.output, command.overwrite)
    files = find_images(command.images)
    _require_apart(command.output, [*files, *_list_model_files(command.model)])
    model = _read_model(command.model)
    images = read_images(files, model.flow.shape, resize=command.resize)
    log_prob = model.log_prob(images)
    ranked = np.sort(log_prob - np.logaddexp.reduce(log_prob, 1, keepdims=True), 1)
    best = ranked[:, -1]
    margins = best - ranked[:, :-1].max(1, initial=-np.inf)  # infinite for a model of one class
    bits = model.domain.bits_per_dim(torch.from_numpy(-log_prob.max(1)), images[0].size)
    columns = (log_prob.argmax(1), best.tolist(), margins.tolist(), bits.tolist())
    rows = [[str(file), model.classes[label], *values] for file, label, *values in zip(files, *columns, strict=True)]
    heading = ["file", "class", "log_probability", "margin", "bits_per_dim"]
    if command.output is None:
        print_rows(heading, rows)
        return
    write_atomically(command.output, format_lines(heading, rows, ",").encode(errors="surrogateescape"))
    logger.info("wrote %s", command.output)


def score(command: Score) -> None:
    """Print or write the scores of the model on labelled images.

    Raises:
        DataError: a folder matches no class, or an image is unreadable or has another shape; nothing is written.
        ConfigError: the output exists, or is one of the files read.
    """
    _require_new(command.output, command.overwrite)
    model = _read_model(command.model)
    files_by_class = find_labelled_images(command.folder, model.classes)
    labels = np.repeat(np.arange(model.num_classes), [len(of_class) for of_class in files_by_class])
    files = [file for of_class in files_by_class for file in of_class]
    _require_apart(command.output, [*files, *_list_model_files(command.model)])
    images = read_images(files, model.flow.shape, resize=command.resize)
    found = model.evaluate(images, labels)
    right = model.predict(images) == labels
    per_class = {}
    for label in np.unique(labels).tolist():
        of_class = right[labels == label]
        accuracy = 100 * float(of_class.mean())
        per_class[model.classes[label]] = {
            "n": len(of_class),
            "nf_acc": accuracy,
            "nf_acc_interval": wilson_interval(accuracy, len(of_class)),
        }
    if command.output is not None:
        content = {"model": command.model, "images": str(command.folder), **found, "classes": per_class}
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        # bytes of a path that is not UTF-8 become escapes, which JSON has too
        write_atomically(command.output, text.encode(errors="backslashreplace"))
        logger.info("wrote %s", command.output)
        return
    values = [
        [_format_label(name), _format_value(name, found)] for name in ("nf_acc", "nf_top5", "bits_per_dim", "ece")
    ]
    print_rows(["metric", "value"], [["images", str(found["n"])], *values])
    print()
    accuracies = [[name, str(scores["n"]), _format_value("nf_acc", scores)] for name, scores in per_class.items()]
    print_rows(["class", "images", _format_label("nf_acc")], accuracies)


def sample(command: Sample) -> None:
    """Draw images, and write them as one picture, as separate files, or both.

    Raises:
        ConfigError: a class is unknown or named twice, the picture is not named as a PNG file or lies in the folder, or
            an output exists or would replace the model.
        FloatingPointError: images are still infinite or NaN after several draws.
    """
    _require_new(command.output, command.overwrite)
    _require_new(command.folder, command.overwrite, "--folder")
    _require_apart(command.output, _list_model_files(command.model))
    _require_apart(command.folder, _list_model_files(command.model), "--folder")
    if command.output is not None and command.output.suffix.lower() != ".png":
        raise ConfigError(f"--output: expected a file NAME.png, received {command.output}")
    if command.output and command.folder and command.output.resolve().is_relative_to(command.folder.resolve()):
        raise ConfigError(f"--output: expected a file outside of --folder {command.folder}, received {command.output}")
    model = _read_model(command.model)
    classes = command.classes or model.classes
    unknown = next((name for name in classes if name not in model.classes), None)
    if unknown is not None:
        raise ConfigError(f"--classes: '{unknown}' is not a class of the model{suggest(unknown, model.classes)}")
    if len(set(classes)) < len(classes):
        raise ConfigError(f"--classes: expected each class once, received {', '.join(classes)}")
    images = np.stack(
        [
            model.sample(
                [name] * command.per_class, command.temperature, make_generator("cpu", command.seed, "class", name)
            )
            for name in classes
        ]
    )
    with written_together():
        if command.output is not None:
            write_atomically(command.output, _draw_grid(images, classes))
            logger.info("wrote %s", command.output)
        if command.folder is not None:
            labels = np.repeat(np.arange(len(classes)), command.per_class)
            image_set = ImageSet(images.reshape(-1, *images.shape[2:]), labels, {"classes": classes})
            export_imagefolder(image_set, command.folder)
            logger.info("wrote %d images in %s", len(labels), command.folder)


def augment_folder(command: AugmentFolder) -> None:
    """Write the variants of each image, in one folder per class.

    Raises:
        DataError: a folder matches no class, or an image is unreadable or has another shape than the model's.
        ConfigError: a class has only one image, or the output exists or would replace images or the model.
    """
    _require_new(command.output, command.overwrite)
    model = _read_model(command.model)
    files_by_class = find_labelled_images(command.folder, model.classes)
    files = [file for of_class in files_by_class for file in of_class]
    _require_apart(command.output, [command.folder, *files, *_list_model_files(command.model)])
    for of_class in files_by_class:
        if len(of_class) == 1:
            raise ConfigError(f"{of_class[0].parent}: expected at least two images to mix, received one")
    names = make_folder_names(model.classes)
    chosen = [label for label, of_class in enumerate(files_by_class) if of_class]
    with replace_folder(command.output, [names[label] for label in chosen]) as partial:
        for label in chosen:
            images = read_images(files_by_class[label], model.flow.shape, resize=command.resize)
            generator = make_generator("cpu", command.seed, "class", model.classes[label])
            made = model.augment(images, [label] * len(images), generator=generator, **command.nfa.model_dump())
            (partial / names[label]).mkdir()
            for name, variants in zip(strip_suffixes(files_by_class[label]), made, strict=True):
                for index, variant in enumerate(variants, 1):
                    _to_picture(variant).save(partial / names[label] / f"{name}_{index}.png")
    count = command.nfa.variants * sum(len(some) for some in files_by_class)
    logger.info("wrote %d images in %s", count, command.output)


def _read_model(name: str) -> ClassConditionalFlow:
    """Load a model of grey or colour pixels on the best available device; files listed in a manifest are verified."""
    for file in _list_model_files(name):
        find_product(file)  # raises if the file does not match its manifest
    model = ClassConditionalFlow.from_pretrained(name)
    if model.domain.dtype != "uint8":
        raise ConfigError(f"{name}: expected a model of 8-bit pixels, received one of latents of an autoencoder")
    if model.shape[2] not in (1, 3):  # image files are read and written as grey or RGB
        raise ConfigError(f"{name}: expected a model of images of 1 or 3 channels, received {model.shape[2]}")
    return model.to(make_device().device)


def _list_model_files(name: str) -> list[Path]:
    """Return the paths of a model's files; they do not exist if the name is an id on the Hugging Face hub."""
    return [Path(name) / file for file in (CONFIG, WEIGHTS)]


def _require_new(path: Path | None, overwrite: bool, option: str = "--output") -> None:
    """Check that an output can be written and, without `overwrite`, does not exist yet."""
    if path is None:
        return
    if path.exists() and not overwrite:
        raise ConfigError(
            f"{path}: expected an output that does not exist, received one that does: choose another {option}, or "
            "give --overwrite"
        )
    require_writable(path)


def _require_apart(output: Path | None, inputs: Iterable[Path], option: str = "--output") -> None:
    """Check that an output that is to be replaced neither is nor contains a file or folder that the command reads."""
    if output is None or not output.exists():
        return
    places: dict[Path, Path] = {}
    for path in filter(Path.exists, inputs):
        real = path.resolve()
        for place in (real, *real.parents):
            places.setdefault(place, path)
    for place, path in places.items():
        if output.samefile(place):  # also through a link
            raise ConfigError(
                f"{output}: expected an output that replaces no input, received one that would replace {path}: choose "
                f"another {option}"
            )


def _draw_grid(images: np.ndarray, classes: Sequence[str]) -> bytes:
    """Draw images (K, n, H, W, C) as a PNG file with one row per class."""
    from nfpi.figures.drawn import render_figure
    from nfpi.figures.image_grid import draw_image_grid

    columns = [str(number) for number in range(1, images.shape[1] + 1)]
    return render_figure(draw_image_grid(images, classes, columns, "class", ""))["png"]


def _to_picture(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)


def _format_label(name: str) -> str:
    """Return the label of a metric with its unit."""
    entry = metric(name)
    return f"{entry.label} ({entry.unit})" if entry.unit else entry.label


def _format_value(name: str, found: dict[str, Any]) -> str:
    """Format the value of a metric, with its interval if it has one."""
    decimals = metric(name).decimals
    text = f"{found[name]:.{decimals}f}"
    if f"{name}_interval" not in found:
        return text
    low, high = found[f"{name}_interval"]
    return f"{text} ({low:.{decimals}f} to {high:.{decimals}f})"
