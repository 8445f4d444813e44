"""Inputs and params of the rules: what a job reads, its command, and whether its product is what it should be.

Snakemake calls these functions, with its wildcards as a mapping of strings, for each job of a plan before it decides
what is to be run. Only its main process compares keys; it records those of the call, from which the processes of jobs,
on a cluster or this machine, take them. They evaluate the Snakefile again, maybe after settings were edited.
"""

from __future__ import annotations

import json
import posixpath
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from nfpi.config.base import ConfigError
from nfpi.config.resolution import Resolved
from nfpi.results.recorded.calls import read_keys
from nfpi.runs import OWN
from nfpi.runtime.chains import Chain
from nfpi.runtime.files import locate_below
from nfpi.runtime.manifests import Manifest, ManifestError
from nfpi.stages.base import Stage
from nfpi.stages.jobs import Job, Need, Planned, Wildcards
from nfpi.stages.keys import Keys, SettingsKeys

_LONGEST_VALUE = 100
"""characters of a value in a list of changes"""
_SMALL = 2**20
"""bytes of the largest files that planning reads"""


@dataclass(frozen=True)
class Planning:
    """The inputs and params of the rules, see the top of this module.

    Args:
        plan: the settings of the call, and the paths that follow from them.
        reference: the paper's numbers (csv).
        force: lets Snakemake run the job with an output of this path; None: this is the process of a job.
    """

    resolved: Resolved
    reference: Path
    force: Callable[[str], None] | None = None
    _chain: SettingsKeys = field(default_factory=SettingsKeys, repr=False)
    _changes: dict[Job, list[str]] = field(default_factory=dict, repr=False)
    _failures: list[Exception] = field(default_factory=list, repr=False)
    _commands: dict[Job, dict[str, list[str]]] = field(default_factory=dict, repr=False)

    @cached_property
    def planned(self) -> Planned:
        """The settings from which stages select the options of a job."""
        return Planned(self.resolved.config, self.resolved.layout.root, self.reference)

    @cached_property
    def keys(self) -> Keys:
        """The keys that products should have."""
        return self._chain.plan(self.planned, Path(self.resolved.downloads))

    @cached_property
    def _recorded_keys(self) -> dict[str, str]:
        return read_keys(self.resolved.layout.root)

    @property
    def extensions(self) -> list[str]:
        """Options that load the user's files."""
        return [text for file in self.resolved.config.extensions for text in ("--extensions", file.as_posix())]

    def inputs(self, stage: type[Stage], **values: str) -> Callable[[Wildcards], dict[str, list[str]]]:
        """Return the input function of a rule, as in `input: unpack(planning.inputs(TrainFlow))`.

        It returns files by name, and forces the job if its product is not what it should be.

        Args:
            stage: the stage.
            **values: values in addition to the wildcards of the rule.
        """

        def find_files(wildcards: Wildcards) -> dict[str, list[str]]:
            job = Job.of(stage, {**wildcards, **values})
            try:
                self._compare(job)
                return self._list_inputs(job)
            except Exception as error:
                self._failures.append(error)
                raise

        return find_files

    def params(self, stage: type[Stage], **values: str) -> dict[str, Callable[..., Any]]:
        """Return the params functions of a rule, as in `params: **planning.params(TrainFlow)`.

        settings: options of the command with all that the result depends on apart from the inputs, and the key.
        execution: options of the command that do not affect the result.
        paths: options of the command that name inputs and output.
        weight: λ in the message of the rule, and s₀ where it is known.
        changed: further lines of the message of the rule: what has changed since the output was made.

        Args:
            stage: the stage.
            **values: values in addition to the wildcards of the rule.
        """

        def find_job(wildcards: Wildcards) -> Job:
            return Job.of(stage, {**wildcards, **values})

        def changed(wildcards: Wildcards) -> str:
            return "".join(f"\nchanged: {change}" for change in self._changes.get(find_job(wildcards), ()))

        return {
            "settings": lambda wildcards: self._get_command(find_job(wildcards))["settings"],
            "execution": lambda wildcards: self._get_command(find_job(wildcards))["execution"],
            "paths": lambda wildcards: self._get_command(find_job(wildcards))["paths"],
            "weight": lambda wildcards: self._describe_weight({**wildcards}),
            "changed": changed,
        }

    def _describe_weight(self, values: Mapping[str, str]) -> str:
        if "weight" not in values:
            return ""
        dataset, prior, weight = values["dataset"], values.get("prior", OWN), values["weight"]
        relative = self.resolved.config.find_relative_weight(dataset, prior, float(weight))
        return f"λ = {weight}" + (f" (s₀ = {relative:.2g})" if relative else "")

    def check(self) -> None:
        """Check that the user's data sets are well-formed, and that all inputs could be listed.

        Raises:
            ConfigError: the files of a data set are ill-formed.
            Exception: what an input function raised; where an output exists, Snakemake would take it for a file of the
                user, and ignore the error.
        """
        for job, error in self.keys.errors.items():
            raise ConfigError(f"datasets.{job.wildcards['dataset']}: {error}")
        for fault in self._failures:
            raise fault

    def _compare(self, job: Job) -> None:
        """Force a job whose product is not what it should be.

        Raises:
            ConfigError: the job makes its product from files that cannot be read. If it has a product, params raise
                this instead: after an error here, Snakemake would take the product for a file of the user.
        """
        if job in self._changes or self.force is None:
            return
        manifest = self.planned.root / job.manifest
        self._changes[job] = changes = self._list_changes(job, manifest)
        for folder, origin in self.keys.absent.items():
            print(f"{folder}: not on this machine, taken to be what {origin} was made from", file=sys.stderr)
        self.keys.absent.clear()
        if job in self.keys.errors and not manifest.exists():
            self.check()
        if self.keys.of(job) is None and job not in self.keys.missing and not manifest.exists():
            for reading, fault in self.keys.missing.items():  # images that this job cannot be made without
                raise ConfigError(f"datasets.{reading.wildcards['dataset']}: {fault}")
        if changes:
            self.force(_join(self.planned.root, job.manifest))

    def _list_changes(self, job: Job, path: Path) -> list[str]:
        """List what has changed since the product of a job was made; empty: nothing, or there is none.

        Snakemake removes the product when the job starts, also if it then fails.
        """
        key, manifest = self.keys.of(job), self._chain.read(path)
        if manifest is None:
            fault = self._chain.find_fault(path)
            return [fault] if fault else []
        if key == manifest.key:
            fault = Chain.find_fault(self._chain, path) or find_edited(path, manifest)
            return [fault] if fault else []
        changes = find_changes(self.planned.plan(job), manifest.settings, job.wildcards)
        if changes:
            return [*changes[:-1], f"{changes[-1]} (the earlier result is removed)"]
        return [self.keys.find_changed_input(job) or "the version of its stage"]

    def _get_command(self, job: Job) -> dict[str, list[str]]:
        """Return the options of a job's command.

        Raises:
            ConfigError: the files of the user that it reads are missing or ill-formed.
        """
        self.check()
        if job not in self._commands:
            stage, root = self.planned.plan(job), self.planned.root
            key = self.keys.of(job) if self.force is not None else self._recorded_keys.get(job.manifest)
            options, needs = stage.select_execution(), stage.list_needs(self.planned, job.wildcards)
            named = {name: [self._name(need) for need in items] for name, items in needs.items()}
            self._commands[job] = {
                "settings": ["--settings", _write_json(stage.declaration), *(["--key", key] if key else [])],
                "execution": [*(["--execution", _write_json(options)] if options else []), *self.extensions],
                "paths": [*stage.list_path_options(named), "--output", _join(root, job.place)],
            }
        return self._commands[job]

    def _list_inputs(self, job: Job) -> dict[str, list[str]]:
        """Return the files that a job reads, by name."""
        found: dict[str, list[str]] = {}
        for name, needs in self.planned.plan(job).list_needs(self.planned, job.wildcards).items():
            setting = job.stage.blocks.get(name, name).format_map(job.wildcards)
            found[name] = [file for need in needs for file in self._list_files(need, job, setting)]
        return found

    def _list_files(self, need: Need | Path | None, job: Job, setting: str) -> list[str]:
        """Return the files that a job needs: all outputs of the job that makes them, or the file of the user.

        Raises:
            ConfigError: the file of the user that a setting names is missing, and the job has no product yet.
        """
        if isinstance(need, Need):
            return [_join(self.planned.root, file) for file in need.job.outputs.values()]
        if need is None or (not need.exists() and (self.planned.root / job.manifest).exists()):
            return []
        if not need.exists():
            raise ConfigError(f"{setting}: expected a file, received {need}, which does not exist")
        return [self._name(need)]

    def _name(self, need: Need | Path | None) -> str:
        """Return the path of what a job reads; a name without a folder would be taken for a target."""
        if isinstance(need, Need):
            return _join(self.planned.root, need.job.locate(need.path))
        assert need is not None
        return (need if len(need.parts) > 1 else need.absolute()).as_posix()


def find_edited(path: Path, manifest: Manifest) -> str:
    """Describe the first small file of a manifest that was changed since; empty: none.

    Larger files than a MiB are left to the stages that read them, and so are files that are missing or unreadable.
    """
    for name in manifest.files:
        with suppress(OSError):
            file = locate_below(path.parent, name)
            if file.stat().st_size <= _SMALL:
                try:
                    manifest.check_file(name, file, path)
                except ManifestError as error:
                    return str(error)
    return ""


def find_changes(job: Stage, before: Mapping[str, Any], wildcards: Mapping[str, str]) -> list[str]:
    """List the settings of a job that differ from those of a manifest, as `training.epochs: 40 → 12`.

    Args:
        job: stage with the current settings.
        before: settings of the manifest.
        wildcards: wildcards of the job, for the names of settings in config.yaml.
    """
    now = job.declaration
    names = {option: job.blocks.get(option, option).format_map(wildcards) for option in now if before}
    old, new = ({name: settings.get(option) for option, name in names.items()} for settings in (before, now))
    if old.pop("code", None) != new.pop("code", None):
        return ["the files of `extensions`", *list_differences(old, new)]
    return list(list_differences(old, new))


def list_differences(old: Mapping[Any, Any], new: Mapping[Any, Any], prefix: str = "") -> Iterator[str]:
    """Yield each setting that differs, as `name: old → new`, where the name begins with `prefix`."""
    for key in dict.fromkeys([*old, *new]):
        before, now = old.get(key), new.get(key)
        if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
            before, now = dict(enumerate(before)), dict(enumerate(now))
        if isinstance(before, dict) and isinstance(now, dict):
            yield from list_differences(before, now, f"{prefix}{key}.")
        elif before != now:
            texts = _format_value(before), _format_value(now)  # which may be equal, where they are cut
            yield f"{prefix}{key}: {' → '.join(dict.fromkeys(texts))}"


def _format_value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


def _write_json(options: Mapping[str, Any]) -> str:
    return json.dumps(options)  # ASCII, for locales that are not UTF-8


def _join(root: Path, place: str) -> str:
    """Return a path below the folder of results; `downloads` lies beside it."""
    return posixpath.normpath(posixpath.join(root.as_posix(), place))
