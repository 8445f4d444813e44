"""The commands that use a model on image files of a user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import model_validator
from pydantic_settings import CliPositionalArg

from nfpi.config import NfaConfig, NonNegativeFloat, PositiveInt, Seed
from nfpi.stages.options.base import Command
from nfpi.stages.options.words import Words


class ModelCommand(Command):
    """A command that reads a model, and replaces nothing unless it is told to."""

    model: CliPositionalArg[str]
    """folder of a model: results/…/model, or what save_pretrained wrote; or its id on the Hugging Face hub"""
    overwrite: bool = False
    """replace an existing output"""


class Classify(ModelCommand):
    """Classify image files by a model.

    A row for each file: its class, the logarithm of the class's probability, by how much that exceeds the second
    class's (both in nats), and the bits/dim of the image under its class. A table on a terminal, else lines with tabs.
    """

    command = "classify"
    work = "nfpi.stages.model_use:classify"

    images: CliPositionalArg[Words[Path]]
    """image files, and folders, whose images are all taken"""
    resize: bool = False
    """resize and centre-crop images of another size, and turn grey to colour or colour to grey"""
    output: Path | None = None
    """csv file for the table, in place of printing it"""


class Sample(ModelCommand):
    """Draw images of classes from a model.

    As one picture (--output), as PNG files in a folder for each class (--folder), or both.
    """

    command = "sample"
    work = "nfpi.stages.model_use:sample"

    classes: Words[str] = []
    """names of classes, e.g. --classes cat dog; without it: all"""
    per_class: PositiveInt = 8
    """images of each class"""
    temperature: NonNegativeFloat = 0.8
    """scales the deviations from the class means: below 1, images are more typical and less varied"""
    seed: Seed = 0
    """of the random numbers; the images of a class do not depend on the other classes"""
    output: Path | None = None
    """PNG file of all images, a row for each class"""
    folder: Path | None = None
    """folder of the images: class/NNNNN.png"""

    @model_validator(mode="after")
    def _check_outputs(self) -> Self:
        if self.output is None and self.folder is None:
            raise ValueError("expected --output FILE or --folder FOLDER, received neither")
        return self


class AugmentFolder(ModelCommand):
    """Make latent-augmented variants of image files.

    Latents of a class are mixed (NFA). Variants of class/NAME.png are class/NAME_1.png, class/NAME_2.png, … Axes and
    partners of a class come from its images in the folder: give all of them, two or more.
    """

    command = "augment-folder"
    work = "nfpi.stages.model_use:augment_folder"

    folder: CliPositionalArg[Path]
    """folder with a folder of images for each class, called as the model's classes; some may be missing"""
    output: Path
    """folder of the variants"""
    nfa: NfaConfig = NfaConfig()
    resize: bool = False
    """resize and centre-crop images of another size, and turn grey to colour or colour to grey"""
    seed: Seed = 0


class Score(ModelCommand):
    """Measure a model on labelled image files.

    Accuracy with its 95 % interval, bits/dim, calibration error, and the accuracy of each class.
    """

    command = "score"
    work = "nfpi.stages.model_use:score"

    folder: CliPositionalArg[Path]
    """folder with a folder of images for each class, called as the model's classes; some may be missing"""
    resize: bool = False
    """resize and centre-crop images of another size, and turn grey to colour or colour to grey"""
    output: Path | None = None
    """JSON file for the numbers, in place of printing them"""
