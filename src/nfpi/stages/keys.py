"""The keys that products should have, by the settings of a preset."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from nfpi.config.base import ConfigError
from nfpi.config.datasets import DataError
from nfpi.results.recorded.calls import SETTINGS_FILE, read_settings
from nfpi.runs import BASELINE, NO_FLOW, OWN, Run, split_refitted
from nfpi.runtime.chains import Chain
from nfpi.runtime.faults import format_error
from nfpi.runtime.formats import FormatError
from nfpi.runtime.manifests import Manifest, ManifestError, find_faults, read_inputs
from nfpi.stages.base import Stage
from nfpi.stages.evaluate import Evaluate
from nfpi.stages.generate import Augment, Generate
from nfpi.stages.jobs import Job, Need, Planned, match_place
from nfpi.stages.models import ImportModel, RefitPrior
from nfpi.stages.prepare_data import DownloadWeights, EncodeData, ExtractFeatures, PrepareData
from nfpi.stages.tables_and_figures import JudgeClaims, MakeFigure, MakeTable
from nfpi.stages.test_classifier import MeasureSamples, TestClassifier
from nfpi.stages.train_classifier import TrainClassifier
from nfpi.stages.train_flow import FitPrior, StartFlow, TrainFlow

PLACED: tuple[type[Stage], ...] = (
    *(PrepareData, EncodeData, ExtractFeatures, DownloadWeights, StartFlow, FitPrior, TrainFlow, ImportModel),
    *(RefitPrior, Evaluate, Generate, Augment, TrainClassifier, TestClassifier, MeasureSamples, MakeTable, MakeFigure),
    JudgeClaims,
)
"""The stages that the jobs of the workflow execute."""
_UNREADABLE = "unreadable"
"""key of what is made from files that are missing or ill-formed, which no product has"""


def find_job(planned: Planned, file: str) -> Job | None:
    """Return the job that makes a file, given by its path below results/{preset}; None: there is none."""
    for stage in PLACED:
        for wildcards in match_place(stage, file):
            with suppress(ValueError):  # a seed or λ that is none
                job = Job.of(stage, wildcards)
                if _is_planned(planned, job) and stage.makes(planned, wildcards):
                    return job
    return None


def find_need(planned: Planned, path: Path) -> Need | Path:
    """Return a file as an output of a job, or as it is if no job makes it."""
    file = Path(os.path.relpath(path, planned.root)).as_posix()
    job = find_job(planned, file)
    return path if job is None else Need(job, posixpath.relpath(file, job.place or "."))


class Keys:
    """Computes the keys of jobs from settings.

    Args:
        planned: the settings.
        read: reads the manifest at a path; None: it is missing or damaged.
        downloads: folder of downloads; None: files of the user are not read, but the keys count that manifests record.

    Attributes:
        errors: why the files of a data set cannot be read, in one line, by the job that reads them.
        missing: which files of a data set are not on this machine, where no manifest has recorded their key.
        absent: files of the user that are not on this machine, with a manifest that recorded their key.
    """

    def __init__(
        self, planned: Planned, read: Callable[[Path], Manifest | None], downloads: Path | None = None
    ) -> None:
        self.planned = planned
        self.errors: dict[Job, str] = {}
        self.missing: dict[Job, str] = {}
        self.absent: dict[Path, Path] = {}
        self._read, self._downloads = read, downloads
        self._keys: dict[Job, str | None] = {}
        self._inputs: dict[Job, dict[str, list[str | None]]] = {}
        """keys of the inputs of these jobs, by name"""

    @property
    def known(self) -> dict[str, str]:
        """The keys computed so far, by the paths of the manifests below results/{preset}."""
        return {job.manifest: key for job, key in self._keys.items() if key is not None}

    def of(self, job: Job) -> str | None:
        """Return the key that the product of a job should have; None: the settings do not tell."""
        if job not in self._keys:
            self._keys[job] = None
            if not _is_planned(self.planned, job):
                return None
            try:
                stage = self.planned.plan(job)
                inputs = self._inputs[job] = dict(self._list_inputs(job, stage))
            except ConfigError:  # e.g. a figure of runs that the preset no longer has
                return None
            keys = {name: [key for key in found if key is not None] for name, found in inputs.items() if found}
            if all(None not in found for found in inputs.values()):
                self._keys[job] = stage.compute_key(keys)
        return self._keys[job]

    def find_changed_input(self, job: Job) -> str:
        """Describe the first input of a job whose key is another than its manifest records; empty: there is none."""
        manifest = self._read(self.planned.root / job.manifest)
        if manifest is None or self.of(job) is None:
            return ""
        for name, keys in self._inputs[job].items():
            before = manifest.list_keys(name)
            if keys != before:
                what = next((found.product for found in manifest.inputs if found.name == name), "") or name
                number = "" if len(keys) == len(before) else f", {len(before)} instead of {len(keys)}"
                return f"the {what} that it is made from{number}"
        return ""

    def _list_inputs(self, job: Job, stage: Stage) -> Iterator[tuple[str, list[str | None]]]:
        """Yield the name and the keys of each input of a job; None: a key that neither settings nor a manifest tell."""
        recorded = self._read(self.planned.root / job.manifest)
        needs = stage.list_needs(self.planned, job.wildcards)
        needs |= {name: [*files] for name, files in stage.list_files_of_settings().items()}
        for name, items in needs.items():
            unique = list(dict.fromkeys(item.job if isinstance(item, Need) else item for item in items))
            keys = [self.of(item) if isinstance(item, Job) else self._identify(name, item) for item in unique]
            if recorded is not None and self._downloads is not None:
                missing = [item for item in unique if isinstance(item, Path) and not item.exists()]
                self.absent |= dict.fromkeys(missing, self.planned.root / job.manifest)
            yield name, list(dict.fromkeys(_fill_in(keys, recorded, name)))
        for name, folder in stage.list_sources().items():
            yield name, _fill_in([self._digest(job, stage, name, folder, recorded)], recorded, name)

    def _digest(self, job: Job, stage: Stage, name: str, folder: Path, recorded: Manifest | None) -> str | None:
        """Return the digest of a folder of the user; None: it is not known, or not on this machine."""
        if self._downloads is None:
            return None
        if not folder.exists():
            if recorded is None:
                self.missing[job] = f"{folder}: expected a folder or an archive, received none"
            else:
                self.absent[folder] = self.planned.root / job.manifest
            return None
        try:
            return stage.digest_source(name, self._downloads)
        except (DataError, OSError) as error:
            self.errors[job] = format_error(error)
            return _UNREADABLE

    def _identify(self, name: str, file: Path | None) -> str | None:
        """Return the key of a file of the user; None: it is not known, or not on this machine."""
        if file is None or self._downloads is None:
            return None
        try:
            found = read_inputs({name: [file]}, self.planned.root)
        except ManifestError:  # the stage that reads it says so
            return _UNREADABLE
        return found[0].key if found else None


def _fill_in(keys: list[str | None], recorded: Manifest | None, name: str) -> list[str | None]:
    """Replace unknown keys of the inputs of a name by those of a manifest, if there is one."""
    if recorded is None or None not in keys:
        return keys
    before: list[str | None] = [*recorded.list_keys(name)]
    if before and (len(before) == len(keys) or not any(keys)):  # of how many files a folder had, its name tells nothing
        return before if not any(keys) else [key or old for key, old in zip(keys, before, strict=True)]
    return [key or _UNREADABLE for key in keys]


def _is_planned(planned: Planned, job: Job) -> bool:
    """Return whether a preset has all that the wildcards of a job name."""
    config, named = planned.config, job.wildcards
    if named.get("source", NO_FLOW) != NO_FLOW:
        named |= Run.from_wildcards(named).of_flow.wildcards
    groups: dict[str, Mapping[str, Any]] = {
        **{"dataset": config.datasets, "flow": config.flows, "classifier": config.classifiers},
        **{"table": config.tables, "name": config.figures},
    }
    prior, _ = split_refitted(named.get("prior", OWN))
    has_prior = prior in (OWN, *BASELINE.values(), *config.priors)
    return has_prior and all(named[wildcard] in group for wildcard, group in groups.items() if wildcard in named)


class SettingsKeys(Chain):
    """Chains whose products should have the keys that the settings in the nearest settings.json above them give.

    Products elsewhere, and those that these settings do not plan, are compared with their inputs only.

    Attributes:
        unknown: why the settings in a folder cannot be read, in one line, by folder.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unknown: dict[Path, str] = {}
        self._known: dict[Path, Keys | None] = {}

    def plan(self, planned: Planned, downloads: Path) -> Keys:
        """Let the settings of the present call count for its results, and return their keys."""
        keys = Keys(planned, self.read, downloads)
        self._known[planned.root.absolute()] = keys
        return keys

    def find_fault(self, path: Path) -> str:
        """Describe in one line why the outputs of a manifest should be made again; empty if they should not."""
        keys, manifest = self.find_keys(path.parent), self.read(path)
        job = None if keys is None else self.find_job(path, keys)
        if manifest is not None:
            expected = None if keys is None or job is None else keys.of(job)
            is_other = job is not None and manifest.stage != job.stage.command
            if is_other or expected not in (None, manifest.key):
                return f"{path}: expected {manifest.product} made with the present settings, received other ones"
            fault = super().find_fault(path)
            changed = "" if fault or keys is None or job is None else keys.find_changed_input(job)
            return fault or (changed and f"{path}: expected the present inputs, received others: {changed}")
        if path.is_file():
            return "".join(find_faults(path)[1][:1])  # a damaged manifest
        if keys is None or job is None:
            return ""
        files = (keys.planned.root / file for file in job.outputs.values())
        made = next((file for file in files if file.is_file()), None)
        return "" if made is None else f"{made}: expected {path.name} beside it, received none"

    @staticmethod
    def find_job(path: Path, keys: Keys) -> Job | None:
        """Return the job that makes the product at the path of a manifest; None: these settings plan none."""
        return find_job(keys.planned, Path(os.path.relpath(path, keys.planned.root)).as_posix())

    def find_keys(self, folder: Path) -> Keys | None:
        """Return the keys of the settings that the products in a folder should be made with."""
        folder = folder.absolute()
        if folder not in self._known:
            if (folder / SETTINGS_FILE).is_file():
                self._known[folder] = self._read_keys(folder)
            else:
                self._known[folder] = None if folder == folder.parent else self.find_keys(folder.parent)
        return self._known[folder]

    def _read_keys(self, root: Path) -> Keys | None:
        try:
            return Keys(Planned(read_settings(root).config, root), self.read)
        except (FormatError, OSError) as error:
            self.unknown[root] = str(error)
            return None
