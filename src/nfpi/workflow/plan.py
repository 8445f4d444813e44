"""The settings of a call of Snakemake, and the paths of inputs and outputs that follow from them.

Functions that Snakemake calls receive its wildcards, a mapping of strings. This package does not import Snakemake.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from nfpi.config.resolution import Resolved
from nfpi.config.settings import Config
from nfpi.runs import (
    FLOW_RUN,
    GENERATED,
    GENERATED_CLASSIFIER,
    IMAGE_SET_FILES,
    INITIAL,
    SPLITS,
    TRAINED_CLASSIFIER,
    TRAINED_REFERENCE,
    Layout,
)
from nfpi.stages.base import MANIFEST, Stage
from nfpi.stages.generate import Generate
from nfpi.stages.planned import Wildcards
from nfpi.stages.prepare_data import PrepareData
from nfpi.stages.test_classifier import TestClassifier
from nfpi.stages.train_classifier import TrainClassifier
from nfpi.stages.train_flow import StartFlow, TrainFlow


def shorten_path(file: Path) -> str:
    """Return a path relative to the working directory if the file is below it, otherwise an absolute path.

    Snakemake would run a job again if the same input had another path.
    """
    file, here = file.resolve(), Path.cwd().resolve()
    return (file.relative_to(here) if file.is_relative_to(here) else file).as_posix()


@dataclass(frozen=True)
class Plan:
    """The settings of one call of Snakemake, and the paths that follow from them.

    Methods that return files by name have nouns as names, since rules unpack their results: `**plan.model()`.

    Args:
        resolved: preset, folder of results and settings.
    """

    resolved: Resolved

    @property
    def config(self) -> Config:
        """The settings."""
        return self.resolved.config

    @property
    def preset(self) -> str:
        """Name of the preset."""
        return self.resolved.preset

    @cached_property
    def layout(self) -> Layout:
        """Paths of the results of the preset."""
        return Layout(self.resolved.results / self.preset)

    @property
    def downloads(self) -> str:
        """Folder of downloads, which all presets share."""
        return f"{self.resolved.results.as_posix()}/downloads"

    def fill_path(self, template: str, wildcards: Wildcards | None = None, **values: str) -> str:
        """Fill a path template of :mod:`nfpi.runs`; wildcards without a value are kept."""
        return self.layout.path(template, **{**(wildcards or {}), **values})

    def outputs(self, stage: type[Stage], template: str, **values: str) -> dict[str, str]:
        """Return the declared outputs of a stage, by name, in the folder of a path template.

        Args:
            stage: the stage.
            template: path template of its folder, see :mod:`nfpi.runs`.
            **values: values of the placeholders in the names of its files.
        """
        return {name: f"{self.fill_path(template)}/{file}" for name, file in stage.get_output_files(**values).items()}

    def splits(self, *splits: str) -> dict[str, Callable[[Wildcards], str]]:
        """Make input functions, one for each file of some splits; each finds its file by a run's data set and seed.

        Their names are `train_images`, `train_labels`, ..., and `data` for the manifest of all splits.
        """
        files = {f"{split}_{name}": f"{split}/{file}" for split in splits for name, file in IMAGE_SET_FILES.items()}
        files["data"] = PrepareData.outputs[MANIFEST]
        return {name: self._make_splits_input(file) for name, file in files.items()}

    def _make_splits_input(self, file: str) -> Callable[[Wildcards], str]:
        def find_file(wildcards: Wildcards) -> str:
            splits = self.config.splits_of(wildcards["dataset"], int(wildcards["seed"]))
            return f"{self.fill_path(SPLITS, wildcards, splits=splits)}/{file}"

        return find_file

    def model(self) -> dict[str, str]:
        """Return the files of a trained model and, as `model`, its manifest."""
        outputs = self.outputs(TrainFlow, FLOW_RUN)
        return {"config": outputs["config"], "weights": outputs["weights"], "model": outputs[MANIFEST]}

    def generated_images(self) -> dict[str, str]:
        """Return the files of a set of generated images, by name."""
        return {f"generated_{name}": file for name, file in self.outputs(Generate, GENERATED).items()}

    def trained_classifier(self) -> dict[str, str]:
        """Return the files of a classifier trained on real images, by name, without its log."""
        outputs = self.outputs(TrainClassifier, TRAINED_CLASSIFIER)
        return {name: outputs[name] for name in ("model", "metrics", MANIFEST)}

    def reference_classifier(self) -> dict[str, str]:
        """Return the weights of the classifier that generated images are measured by, and its manifest."""
        outputs = self.outputs(TrainClassifier, TRAINED_REFERENCE)
        return {"reference": outputs["model"], "trained": outputs[MANIFEST]}

    def classifier_of_generated(self) -> dict[str, str]:
        """Return the metrics of a tested classifier of generated images, and their manifest."""
        outputs = self.outputs(TestClassifier, GENERATED_CLASSIFIER)
        return {"metrics": outputs["metrics"], "tested": outputs[MANIFEST]}

    def initial_file(self, name: str) -> Callable[[Wildcards], str]:
        """Make an input function of a file of the initial state that a run continues from.

        Args:
            name: its name in `StartFlow.outputs`.
        """

        def find_file(wildcards: Wildcards) -> str:
            folder = self.fill_path(INITIAL, wildcards, start=self.config.start_of(wildcards["prior"]))
            return f"{folder}/{StartFlow.outputs[name]}"

        return find_file
