"""The commands that apply a trained model to the user's image files."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field
from pydantic_settings import CliPositionalArg, CliVariadicArg

from nfpi.config.base import UNIQUE, ConfigError, NonNegativeFloat, PositiveInt, Seed
from nfpi.config.flows import NfaConfig
from nfpi.config.metrics import metric
from nfpi.results.numbers import format_measurement
from nfpi.results.recorded.csv_files import format_lines
from nfpi.runs import MODEL_FILES
from nfpi.runtime.files import require_writable, write_atomically
from nfpi.runtime.manifests import find_product
from nfpi.stages.base import Command, Paths, Words
from nfpi.stages.inspection import print_rows

if TYPE_CHECKING:
    from nfpi.model import ClassConditionalFlow

logger = logging.getLogger(__name__)

_SCORES = ("nf_acc", "nf_top5", "bits_per_dim", "ece", "ece_calibrated")
"""metrics that are printed, if the model has them"""


class ModelCommand(Command):
    """A command that reads a model, and replaces nothing."""

    model: CliPositionalArg[str]
    """folder of a model (results/…/model, or written by save_pretrained), `digits` or `fashion_mnist` (trained models
    of the package), or an id on the Hugging Face hub"""

    def _read_model(self, *, resize: bool = False) -> ClassConditionalFlow:
        """Load a model of grey or colour pixels on the best device; files listed in a manifest are verified."""
        from nfpi.model import ClassConditionalFlow
        from nfpi.runtime.device import make_device

        for file in MODEL_FILES.values():
            find_product(Path(self.model) / file)  # raises if the file does not match its manifest
        model = ClassConditionalFlow.from_pretrained(self.model)
        channels = model.shape[2]
        if model.domain.dtype != "uint8" or channels not in (1, 3):  # image files are read and written as grey or RGB
            raise ConfigError(
                f"{self.model}: expected a model of 8-bit pixels of 1 or 3 channels, received {model.domain.dtype} of "
                f"{channels} channels"
            )
        model.resize = resize
        return model.to(make_device().device)

    def _check_output(self, output: Path | None, option: str = "--output") -> None:
        """Check that the output that an option names can be written, and replaces nothing."""
        if output is not None:
            require_writable(output)
            if output.exists():
                raise ConfigError(f"{output}: it exists: remove it, or choose another {option}")


class FolderCommand(ModelCommand):
    """A command that reads labelled image files."""

    folder: CliPositionalArg[Path]
    """folder with one folder of images per class, named like the model's classes; some may be missing"""
    resize: bool = False
    """resize and centre-crop images of another size, and turn colour to grey for a model of grey ones"""


class Classify(ModelCommand):
    """Classify image files by a model.

    Prints one row per file: its class, the probability of the class in per cent, the margin of its log-probability
    over the second class in nats, and the bits/dim of the image under its class. Prints a table on a terminal, else
    tab-separated lines. With --coverage, a column `decision` says whether the model is sure, not sure, or the image is
    of an unknown kind.
    """

    command = "classify"
    group = "use a model"

    images: CliPositionalArg[Paths]
    """image files, and folders of image files"""
    resize: bool = False
    """resize and centre-crop images of another size, and turn colour to grey for a model of grey ones"""
    coverage: Annotated[float, Field(gt=0, le=1)] | None = None
    """share of images like those of `nfpi calibrate` of which the model is to be sure"""
    output: Path | None = None
    """csv file for the table instead of printing it; names that a spreadsheet would compute get an apostrophe"""

    def run(self) -> None:
        """Print or write the prediction for each image.

        Raises:
            DataError: an image is unreadable or has another shape than the model's; nothing is written.
            ConfigError: the output exists.
        """
        import torch

        from nfpi.data.image_files import find_images
        from nfpi.results.statistics.abstention import compute_margins

        self._check_output(self.output)
        files = find_images(self.images)
        model = self._read_model(resize=self.resize)
        log_prob, distance = model.measure(files)
        is_calibrated = model.config.get("calibration") is not None
        scaled = torch.from_numpy(log_prob / (model.calibration.temperature if is_calibrated else 1))
        best = 100 * scaled.log_softmax(1).amax(1).exp()
        bits = model.domain.bits_per_dim(torch.from_numpy(-log_prob.max(1)), math.prod(model.shape))
        columns = [log_prob.argmax(1), best.tolist(), compute_margins(log_prob).tolist(), bits.tolist()]
        heading = ["file", "class", "probability", "margin", "bits_per_dim"]
        if self.coverage is not None:
            heading.append("decision")
            columns.append(model.calibration.decide(log_prob, distance, self.coverage).tolist())
        rows = [
            [str(file), model.classes[label], *values] for file, label, *values in zip(files, *columns, strict=True)
        ]
        if not is_calibrated:
            logger.warning("these probabilities are not calibrated: nfpi calibrate %s FOLDER --output NEW", self.model)
        if self.output is None:
            print_rows(heading, rows)
            return
        write_atomically(self.output, format_lines(heading, rows, ",").encode(errors="surrogateescape"))
        logger.info("wrote %s", self.output)


class Calibrate(FolderCommand):
    """Learn from labelled image files how sure a model may be.

    Writes a copy of the model with the temperature of its class probabilities, and the thresholds for
    `nfpi classify --coverage`. Images that the model was trained on are left out.
    """

    command = "calibrate"
    group = "use a model"

    output: Path
    """folder of the calibrated model"""

    def run(self) -> None:
        """Write the calibrated model."""
        self._check_output(self.output)
        model = self._read_model(resize=self.resize).calibrate(self.folder)
        model.save_pretrained(self.output)
        logger.info("wrote %s: temperature %.3g", self.output, model.calibration.temperature)


class Score(FolderCommand):
    """Measure a model on labelled image files.

    Prints accuracy with its 95 % interval, bits/dim, calibration error, and the accuracy of each class. Images that the
    model was trained on are left out.
    """

    command = "score"
    group = "use a model"

    output: Path | None = None
    """JSON file for the numbers instead of printing them"""

    def run(self) -> None:
        """Print or write the scores of the model on labelled images."""
        self._check_output(self.output)
        found = self._read_model(resize=self.resize).evaluate(self.folder)
        if self.output is not None:
            content = {"model": self.model, "images": str(self.folder), **found}
            text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
            # bytes of a path that is not UTF-8 become escapes, which JSON has too
            write_atomically(self.output, text.encode(errors="backslashreplace"))
            logger.info("wrote %s", self.output)
            return
        rows = [[metric(name).label, _format_score(name, found)] for name in _SCORES if name in found]
        print_rows(["metric", "value"], [["images", str(found["n"])], *rows])
        print()
        rows = [[name, str(scores["n"]), _format_score("nf_acc", scores)] for name, scores in found["classes"].items()]
        print_rows(["class", "images", metric("nf_acc").label], rows)


class Sample(ModelCommand):
    """Draw images of classes from a model.

    Writes one picture (--output), PNG files in one folder per class (--folder), or both.
    """

    command = "sample"
    group = "use a model"

    classes: CliVariadicArg[Annotated[Words[str], UNIQUE]] = []
    """names of classes, e.g. --classes cat dog; default: all; a name with a comma is given as '"a, b"'"""
    per_class: PositiveInt = 8
    """number of images per class"""
    temperature: NonNegativeFloat = 0.8
    """scale of the deviations from the class means; below 1, images are more typical and less varied"""
    seed: Seed = 0
    """seed of the random numbers; the images of a class do not depend on the other classes"""
    output: Path | None = None
    """PNG file of all images, one row per class"""
    folder: Path | None = None
    """folder of the images: class/NNNNN.png"""

    def run(self) -> None:
        """Draw images, and write them as one picture, as separate files, or both.

        Raises:
            ConfigError: there is no output, or one exists.
            ValueError: a class is unknown.
            FloatingPointError: images are still infinite or NaN after several draws.
        """
        import numpy as np

        from nfpi.data.sources.imagefolder import export_imagefolder
        from nfpi.data.store import ImageSet
        from nfpi.figures.image_grid import draw_image_grid
        from nfpi.figures.style import render_figure
        from nfpi.runtime.randomness import make_generator

        if self.output is None and self.folder is None:
            raise ConfigError("sample: expected --output FILE or --folder FOLDER, received neither")
        self._check_output(self.output)
        self._check_output(self.folder, "--folder")
        model = self._read_model()
        classes = self.classes or model.classes
        generators = {name: make_generator("cpu", self.seed, "class", name) for name in classes}
        drawn = [model.sample([name] * self.per_class, self.temperature, generators[name]) for name in classes]
        if self.output is not None:
            columns = [str(number) for number in range(1, self.per_class + 1)]
            picture = draw_image_grid(np.stack(drawn), classes, columns, "class", "")
            write_atomically(self.output, render_figure(picture, "png"))
            logger.info("wrote %s", self.output)
        if self.folder is not None:
            labels = np.repeat(np.arange(len(classes)), self.per_class)
            export_imagefolder(ImageSet(np.concatenate(drawn), labels, {"classes": classes}), self.folder)
            logger.info("wrote %d images in %s", len(labels), self.folder)


class AugmentFolder(FolderCommand):
    """Make latent-augmented variants of image files.

    Mixes latents of a class (NFA). Variants of class/NAME.png are class/NAME_1.png, class/NAME_2.png, … Principal axes
    are computed from the images in the folder, and each image is mixed with others of its class there, so the folder
    should have all images of a class, at least two.
    """

    command = "augment-folder"
    group = "use a model"

    output: Path
    """folder of the variants"""
    nfa: NfaConfig = NfaConfig()
    seed: Seed = 0

    def run(self) -> None:
        """Write the variants of each image, in one folder per class; ValueError: a class has only one image."""
        from PIL import Image

        from nfpi.data.sources.imagefolder import find_labelled_images, make_folder_names, strip_suffixes
        from nfpi.data.writer import replace_folder
        from nfpi.runtime.randomness import make_generator

        self._check_output(self.output)
        model = self._read_model(resize=self.resize)
        files = find_labelled_images(self.folder, model.classes)
        chosen = {label: name for label, name in enumerate(make_folder_names(model.classes)) if files[label]}
        with replace_folder(self.output, chosen.values()) as partial:
            for label, name in chosen.items():
                generator = make_generator("cpu", self.seed, "class", model.classes[label])
                labels = [label] * len(files[label])
                made = model.augment(files[label], labels, generator=generator, **self.nfa.model_dump())
                (partial / name).mkdir()
                for stem, variants in zip(strip_suffixes(files[label]), made, strict=True):
                    for index, variant in enumerate(variants, 1):
                        Image.fromarray(variant.squeeze()).save(partial / name / f"{stem}_{index}.png")
        logger.info("wrote %d images in %s", self.nfa.variants * sum(map(len, files)), self.output)


def _format_score(name: str, found: Mapping[str, Any]) -> str:
    """Format the value of a metric with its unit, and with its interval if it has one."""
    entry = metric(name)
    text, interval = format_measurement(found[name], entry), found.get(f"{name}_interval")
    return text if interval is None else f"{text} ({' to '.join(f'{bound:.{entry.decimals}f}' for bound in interval)})"
