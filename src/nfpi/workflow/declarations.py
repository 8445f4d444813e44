"""What rules pass to their stages: the settings that a result depends on and, apart from them, how the job runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from nfpi.results.recorded.settings import FILE, read_settings
from nfpi.runtime.manifests import ManifestError, read_manifest
from nfpi.stages.base import MANIFEST, Stage
from nfpi.stages.planned import Planned, Wildcards
from nfpi.workflow.plan import Plan

_LONGEST_VALUE = 100
"""characters of a value in a list of changes"""


@dataclass(frozen=True)
class Declarations:
    """The params of the rules that are not paths.

    Args:
        plan: the settings of the call.
        is_main_process: whether this is Snakemake's main process, not that of a job on a cluster.
        faults: why products are outdated, by the paths of their manifests (:class:`nfpi.workflow.outdated.Outdated`).
    """

    plan: Plan
    is_main_process: bool = True
    faults: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def planned(self) -> Planned:
        """The settings from which stages select the options of a job."""
        return Planned(self.plan.config)

    @cached_property
    def submitted(self) -> Planned:
        """The settings of the call that submitted this job, which may have been edited since."""
        if self.is_main_process or not (self.plan.layout.root / FILE).is_file():
            return self.planned
        return Planned(read_settings(self.plan.layout.root).config)

    @property
    def extensions(self) -> list[str]:
        """Options that load the user's files."""
        return [text for file in self.plan.config.extensions for text in ("--extensions", file.as_posix())]

    def of(self, stage: type[Stage], **values: str) -> dict[str, Callable[..., Any]]:
        """Return the params functions of a rule, as in `params: **declarations.of(TrainFlow)`.

        settings: options of the command with the declaration of the stage, i.e. all that the result depends on apart
            from the content of the inputs, and as last word its seal. Snakemake compares them with those of the last
            run.
        execution: options of the command that do not affect the result. Snakemake does not compare them, since the
            function has the argument `threads`.
        changed: further lines of the message of the rule: what has changed since the output was made.

        Args:
            stage: the stage.
            **values: values in addition to the wildcards of the rule.
        """

        def plan_job(wildcards: Wildcards, planned: Planned = self.planned) -> Stage:
            return stage.plan(planned, {**wildcards, **values})

        known: dict[tuple[str, ...], list[str]] = {}

        def settings(wildcards: Wildcards) -> list[str]:
            key = tuple({**wildcards}.values())
            if key not in known:  # asked for twice for each job: is its output outdated, and as params
                job = plan_job(wildcards)
                planned = job if self.submitted is self.planned else plan_job(wildcards, self.submitted)
                known[key] = ["--settings", _write_json(job.declaration), "--seal", planned.compute_seal()]
            return known[key]

        def execution(wildcards: Wildcards, threads: int) -> list[str]:
            options = plan_job(wildcards).select_execution()
            return [*(["--execution", _write_json(options)] if options else []), *self.extensions]

        def changed(wildcards: Wildcards, output: Any) -> str:
            manifest = Path(getattr(output, MANIFEST, ""))
            if not manifest.is_file():
                return ""
            changes = find_changes(plan_job(wildcards), manifest, {**wildcards, **values})
            changes = changes or [*filter(None, [self.faults.get(str(manifest))])]
            return "".join(f"\nchanged: {change}" for change in changes)

        return {"settings": settings, "execution": execution, "changed": changed}


def find_changes(job: Stage, manifest: Path, wildcards: Mapping[str, str]) -> list[str]:
    """List the settings of a job that differ from those in a manifest, as `training.epochs: 40 → 12`.

    Args:
        job: stage with the current settings.
        manifest: path of the manifest; a damaged one has no settings.
        wildcards: wildcards of the job, for the names of settings in config.yaml.
    """
    try:
        before = read_manifest(manifest).settings
    except (ManifestError, OSError):
        return []
    now = job.declaration
    names = {option: job.blocks.get(option, option).format_map(wildcards) for option in now if before}
    old, new = ({name: settings.get(option) for option, name in names.items()} for settings in (before, now))
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
            yield f"{prefix}{key}: {_format_value(before)} → {_format_value(now)}"


def _format_value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


def _write_json(options: Mapping[str, Any]) -> str:
    return json.dumps(options)  # ASCII, for locales that are not UTF-8
