"""Commands that apply a trained model to the user's image files."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import model_validator
from pydantic_settings import CliPositionalArg

from nfpi.config import NfaConfig, NonNegativeFloat, PositiveInt, Seed
from nfpi.stages.options.base import Command
from nfpi.stages.options.words import Words


class ModelCommand(Command):
    """A command that reads a model, and replaces existing outputs only with --overwrite."""

    model: CliPositionalArg[str]
    """folder of a model (results/…/model, or written by save_pretrained), or its id on the Hugging Face hub"""
    overwrite: bool = False
    """replace an existing output"""


class Classify(ModelCommand):
    """Classify image files by a model.

    Prints one row per file: its class, the log-probability of the class, its margin over the second class (both in
    nats), and the bits/dim of the image under its class. Prints a table on a terminal, else tab-separated lines.
    """

    command = "classify"
    work = "nfpi.stages.model_use:classify"

    images: CliPositionalArg[Words[Path]]
    """image files, and folders of image files"""
    resize: bool = False
    """resize and centre-crop images of another size, and turn grey to colour or colour to grey"""
    output: Path | None = None
    """csv file for the table instead of printing it"""


class Sample(ModelCommand):
    """Draw images of classes from a model.

    Writes one picture (--output), PNG files in one folder per class (--folder), or both.
    """

    command = "sample"
    work = "nfpi.stages.model_use:sample"

    classes: Words[str] = []
    """names of classes, e.g. --classes cat dog; default: all"""
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

    @model_validator(mode="after")
    def _check_outputs(self) -> Self:
        if self.output is None and self.folder is None:
            raise ValueError("expected --output FILE or --folder FOLDER, received neither")
        return self


class AugmentFolder(ModelCommand):
    """Make latent-augmented variants of image files.

    Mixes latents of a class (NFA). Variants of class/NAME.png are class/NAME_1.png, class/NAME_2.png, … Principal axes
    are computed from the images in the folder, and each image is mixed with others of its class there, so the folder
    should have all images of a class, at least two.
    """

    command = "augment-folder"
    work = "nfpi.stages.model_use:augment_folder"

    folder: CliPositionalArg[Path]
    """folder with one folder of images per class, named like the model's classes; some may be missing"""
    output: Path
    """folder of the variants"""
    nfa: NfaConfig = NfaConfig()
    resize: bool = False
    """resize and centre-crop images of another size, and turn grey to colour or colour to grey"""
    seed: Seed = 0


class Score(ModelCommand):
    """Measure a model on labelled image files.

    Prints accuracy with its 95 % interval, bits/dim, calibration error, and the accuracy of each class.
    """

    command = "score"
    work = "nfpi.stages.model_use:score"

    folder: CliPositionalArg[Path]
    """folder with one folder of images per class, named like the model's classes; some may be missing"""
    resize: bool = False
    """resize and centre-crop images of another size, and turn grey to colour or colour to grey"""
    output: Path | None = None
    """JSON file for the numbers instead of printing them"""
