"""What all rules share: the settings of the call, and where things lie.

Functions that Snakemake calls get its wildcards, which are a mapping of texts. This package does not import Snakemake.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import BaseModel

from nfpi.config import Config, ConfigError, DatasetConfig, Resolved
from nfpi.config.datasets import PER_SEED
from nfpi.config.figures import IMAGE_SET
from nfpi.runs import (
    BASELINE,
    COMMON_SPLITS,
    FLOW_RUN,
    GENERATED,
    INITIAL,
    SPLITS,
    SPLITS_OF_SEED,
    TRAINED_CLASSIFIER,
    Layout,
    seed_of_splits,
)
from nfpi.stages.options import Generate, PrepareData, Stage, StartFlow, TrainClassifier, TrainFlow
from nfpi.stages.options.base import MANIFEST

Wildcards = Mapping[str, str]


def as_json(settings: BaseModel, *, without: Iterable[str] = ()) -> str:
    """Settings as one line of JSON."""
    return json.dumps(settings.model_dump(mode="json", exclude=set(without)))


def as_dict(wildcards: Wildcards) -> dict[str, str]:
    """Wildcards as a plain mapping; Snakemake's are a list with names."""
    return {name: wildcards[name] for name in wildcards.keys()}  # noqa: SIM118


def shorten_path(file: Path) -> str:
    """A file as seen from the working directory where it lies below that, else its whole path.

    Snakemake runs a job again when the path of an input has another text, if only that.
    """
    file, here = file.resolve(), Path.cwd().resolve()
    return (file.relative_to(here) if file.is_relative_to(here) else file).as_posix()


@dataclass(frozen=True)
class Plan:
    """The settings of one call, and the paths that follow from them.

    Args:
        resolved: preset, folder of results, settings.
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
        """Folder of what is downloaded, shared by the presets."""
        return f"{self.resolved.results.as_posix()}/downloads"

    def path(self, template: str, wildcards: Wildcards | None = None, **values: str) -> str:
        """A template of :mod:`nfpi.runs`, filled where values are given; else its wildcards stay."""
        known = {**(as_dict(wildcards) if wildcards is not None else {}), **values}
        return self.layout.path(template, **known)

    def outputs(self, stage: type[Stage], template: str, **values: str) -> dict[str, str]:
        """The declared outputs of a stage that fills this folder, by name."""
        return {name: f"{self.path(template)}/{file}" for name, file in stage.output_files(**values).items()}

    def shared_outputs(self, stage: type[Stage], folder: str, **values: str) -> dict[str, str]:
        """The declared outputs of a stage whose folder beside the presets' they share, by name."""
        return {
            name: f"{self.resolved.results.as_posix()}/{folder}/{file}"
            for name, file in stage.output_files(**values).items()
        }

    def splits(self, *splits: str) -> dict[str, Callable[[Wildcards], str]]:
        """Input functions: the files of some of the splits that a run of a data set and a seed sees, by name.

        The names are `train_images`, `train_labels`, ..., and `data` for the manifest of all splits.
        """
        files = {f"{split}_{file.partition('.')[0]}": f"{split}/{file}" for split in splits for file in IMAGE_SET}
        files["data"] = PrepareData.outputs[MANIFEST]
        return {name: self._file_of_splits(file) for name, file in files.items()}

    def _file_of_splits(self, file: str) -> Callable[[Wildcards], str]:
        def find(wildcards: Wildcards) -> str:
            dataset = wildcards["dataset"]
            splits = self.config.splits_of(dataset, int(wildcards["seed"]))
            return f"{self.path(SPLITS, dataset=dataset, splits=splits)}/{file}"

        return find

    def dataset(self, wildcards: Wildcards) -> DatasetConfig:
        """The settings of a data set, with the seed of the splits that the wildcards name.

        Raises:
            ConfigError: no run sees these splits.
        """
        name, splits = wildcards["dataset"], wildcards["splits"]
        block, seed = self.config.datasets[name], seed_of_splits(splits)
        if block.split_seed == PER_SEED and seed is not None:
            return block.with_split_seed(seed)
        if block.split_seed != PER_SEED and seed is None:
            return block.with_split_seed(block.split_seed)
        expected = COMMON_SPLITS if seed is not None else SPLITS_OF_SEED
        raise ConfigError(
            f"datasets.{name}: expected splits in {expected}, as split_seed is {block.split_seed}, received {splits}"
        )

    def model(self) -> dict[str, str]:
        """The files of a trained model, and its manifest, `model`."""
        outputs = self.outputs(TrainFlow, FLOW_RUN)
        return {"config": outputs["config"], "weights": outputs["weights"], "model": outputs[MANIFEST]}

    def generated(self) -> dict[str, str]:
        """The files of a set of generated images, by name."""
        return {f"generated_{name}": file for name, file in self.outputs(Generate, GENERATED).items()}

    def trained_classifier(self) -> dict[str, str]:
        """The files of a trained classifier of real images, by name; of its log nothing depends."""
        outputs = self.outputs(TrainClassifier, TRAINED_CLASSIFIER)
        return {name: outputs[name] for name in ("model", "metrics", MANIFEST)}

    def manifest(self, stage: type[Stage], template: str) -> str:
        """The manifest of a stage that fills this folder."""
        return self.outputs(stage, template)[MANIFEST]

    def start_of(self, prior: str) -> str:
        """The initial Gaussians that a prior, as it lies on disk, begins with."""
        starts = {baseline: start for start, baseline in BASELINE.items()}
        return starts[prior] if prior in starts else self.config.priors[prior].start

    def initial(self, wildcards: Wildcards) -> str:
        """Folder of the initial state that a run continues."""
        return self.path(INITIAL, wildcards, start=self.start_of(wildcards["prior"]))

    def initial_file(self, name: str) -> Callable[[Wildcards], str]:
        """Input function: a file of the initial state that a run continues, by the name that its stage gives it."""
        return lambda wildcards: f"{self.initial(wildcards)}/{StartFlow.outputs[name]}"
