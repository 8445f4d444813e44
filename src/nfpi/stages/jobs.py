"""The jobs of the workflow: the options that settings give a stage, its place, and what it needs from other jobs."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from nfpi.config.experiments import TableSettings
from nfpi.config.extensions import hash_extension
from nfpi.config.metrics import GENERATED_PREFIX, METRICS, VALIDATION_PREFIX, find_registered_name, metric
from nfpi.config.settings import Config
from nfpi.results.tables.rows import TableRow, list_table_rows
from nfpi.runs import Run, compile_template

if TYPE_CHECKING:
    from nfpi.stages.base import Stage


Wildcards = Mapping[str, str]
"""The wildcards of a job, as in the path templates of :mod:`nfpi.runs`."""


_NUMBERS = {"seed": int, "temperature": float, "weight": float}
"""types of wildcards that are not text"""


@dataclass(frozen=True)
class Planned:
    """The settings of a preset, from which :meth:`Stage.select_options` takes those of a job.

    Attributes:
        config: the settings.
        root: folder of the results, results/{preset}.
        reference: the paper's numbers (csv); None: its path is unknown, as in results of another machine.
    """

    config: Config
    root: Path = Path()
    reference: Path | None = None
    _resolved: dict[tuple[str, str], Config] = field(default_factory=dict)
    _digests: dict[Path, str] = field(default_factory=dict)
    _stages: dict[Job, Stage] = field(default_factory=dict)

    def plan(self, job: Job) -> Stage:
        """Create the stage of a job with the options that these settings give it, without paths; only once."""
        if job not in self._stages:
            self._stages[job] = job.stage.plan(self, job.wildcards)
        return self._stages[job]

    def resolve(self, wildcards: Wildcards) -> Config:
        """Return the settings for the data set of a job, and for its backbone, whose `training` is merged."""
        dataset, flow = wildcards.get("dataset"), wildcards.get("flow")
        config = self.config if dataset is None else self.config.for_dataset(dataset)
        if dataset is None or flow is None:
            return config
        if (dataset, flow) not in self._resolved:
            training = self.config.resolve_training(dataset, flow)
            block = config.flows[flow].model_copy(update={"training": {}})
            changes = {"training": training, "flows": {flow: block}}
            self._resolved[dataset, flow] = config.model_copy(update=changes)
        return self._resolved[dataset, flow]

    def list_digests(self, wildcards: Wildcards, *blocks: str, metrics: Iterable[str] = ()) -> list[str]:
        """Return the digests of the user's files that define what a job uses.

        Args:
            wildcards: wildcards of the job.
            blocks: wildcards that name a block of settings: `dataset`, `flow`, `prior`, `classifier`.
            metrics: names of metrics.
        """
        config = self.config.for_dataset(wildcards["dataset"]) if blocks else self.config
        files = config.list_extensions(**{block: wildcards[block] for block in blocks})
        return self.digest_files([*files, *(METRICS[find_registered_name(name)].extension for name in metrics)])

    def digest_files(self, files: Iterable[Path | None]) -> list[str]:
        """Return the digests of the user's files, sorted; None, which stands for built-in code, is omitted."""
        named = {file for file in files if file is not None}
        self._digests.update({file: hash_extension(file) for file in named - self._digests.keys()})
        return sorted(self._digests[file] for file in named)

    def list_added_metrics(self, run: Run) -> list[str]:
        """Return the metrics to compute for a run that are not always computed: the user's, and those of samples."""
        return sorted(self._added_metrics.get(replace(run, seed=0), ()))

    @cached_property
    def _added_metrics(self) -> dict[Run, set[str]]:
        """For each run, as if of seed 0, such metrics of the tables that show it, and of claims about these."""
        found: dict[Run, set[str]] = {}
        for table, settings in self.config.tables.items():
            names = {*list_table_metrics(settings), *self.config.list_claimed_metrics(table)}
            prefixed = {name for name in names if name.startswith(GENERATED_PREFIX)}
            of_generated, own = _select_own(prefixed), _select_own(names - prefixed)
            of_samples = {name for name in names if metric(name).model == "samples"}
            for row in list_table_rows(self.config, table) if own | of_generated | of_samples else ():
                of_classifiers = own if row.is_trained_on_real_images else of_generated
                measured = ((row.flow_runs, own), (row.classifier_runs, of_classifiers), (row.sample_runs, of_samples))
                for runs, used in measured:
                    for run in runs:
                        found.setdefault(replace(run, seed=0), set()).update(used)
        return found


def find_setting(config: Mapping[str, Any], wildcards: Wildcards, place: str) -> Any:
    """Return a wildcard of this name or, if there is none, what is at a place in config.yaml, e.g. `priors.{prior}`.

    None: there is neither.
    """
    if place in wildcards:
        return _NUMBERS.get(place, str)(wildcards[place])
    found: Any = config
    for key in (part.format_map(wildcards) for part in place.split(".")):
        found = found.get(key) if isinstance(found, Mapping) else getattr(found, key)
    return found


def list_table_metrics(table: TableSettings) -> list[str]:
    """Return the metrics of a table, and the metric that selects λ."""
    return [*table.metrics, *([f"{VALIDATION_PREFIX}{table.best_by}"] if table.best_by is not None else [])]


def _select_own(metrics: Iterable[str]) -> set[str]:
    """Select the metrics that the user's code computes, under the names that they are registered by."""
    names = map(find_registered_name, metrics)
    return {name for name in names if METRICS[name].extension is not None and METRICS[name].builder is not None}


def keep_first_seed(rows: Iterable[TableRow]) -> list[TableRow]:
    """Return rows with the runs of their first seed: all runs are those of this seed at each of the seeds."""
    return [row.with_seeds([row.runs[0].seed]) for row in rows]


MANIFEST = "manifest"
"""name of the output that is written last"""


@dataclass(frozen=True)
class Job:
    """A stage that writes its outputs at one of its places.

    Attributes:
        stage: the stage.
        place: folder below results/{preset}.
        items: names and values of the wildcards, sorted.
    """

    stage: type[Stage]
    place: str
    items: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, stage: type[Stage], wildcards: Mapping[str, str]) -> Self:
        """Create the job whose wildcards are among these.

        Raises:
            LookupError: a wildcard is missing.
        """
        for template in stage.places:
            names = _list_names(template) | set(_name_wildcards(stage).values())
            if names <= wildcards.keys():
                items = tuple(sorted((name, wildcards[name]) for name in names))
                return cls(stage, template.format(**wildcards), items)
        raise LookupError(f"{stage.command}: no place for {dict(wildcards)}")

    @property
    def wildcards(self) -> dict[str, str]:
        """Values of the wildcards."""
        return dict(self.items)

    @property
    def outputs(self) -> dict[str, str]:
        """Paths of the declared outputs below results/{preset}, by name."""
        values = {name: self.wildcards[wildcard] for name, wildcard in _name_wildcards(self.stage).items()}
        return {name: self.locate(file) for name, file in self.stage.get_output_files(**values).items()}

    @property
    def manifest(self) -> str:
        """Path of the manifest below results/{preset}."""
        return self.outputs[MANIFEST]

    def locate(self, file: str) -> str:
        """Return the path of a file below results/{preset}."""
        return posixpath.join(self.place, file)


@dataclass(frozen=True)
class Need:
    """What a job reads from another one.

    Attributes:
        job: the job that makes it.
        path: the file, or the folder of files, that the option of the reading stage names, below the job's place.
    """

    job: Job
    path: str = ""


Needs = dict[str, list[Need | Path | None]]
"""What a job reads, by name: products of other jobs, files of the user, or None for a file whose path is unknown."""


@cache
def _list_names(template: str) -> frozenset[str]:
    return frozenset(re.findall(r"{(\w+)}", template))


@cache
def _name_wildcards(stage: type[Stage]) -> dict[str, str]:
    """Return the wildcard that gives each option in the name of the manifest."""
    return {name: stage.blocks.get(name, name) for name in _list_names(stage.outputs[MANIFEST])}


def match_place(stage: type[Stage], file: str) -> list[dict[str, str]]:
    """Return the wildcards of each job of a stage that would declare a file, given by its path below results/{preset}.

    A job may nevertheless be made by another stage, see :meth:`nfpi.stages.base.Stage.makes`.
    """
    matches = (
        compile_template(posixpath.join(template, _fill_names(stage, output))).fullmatch(file)
        for template in stage.places
        for output in stage.outputs.values()
        if posixpath.basename(output) == posixpath.basename(file) or "{" in output
    )
    return [match.groupdict() for match in matches if match is not None]


def _fill_names(stage: type[Stage], output: str) -> str:
    """Replace the options in a file's name by their wildcards."""
    return output.format(**{name: f"{{{wildcard}}}" for name, wildcard in _name_wildcards(stage).items()})
