"""What rules pass to their stages: the settings that the result depends on, and apart from them how the job runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nfpi.runtime.manifests import ManifestError, read_manifest
from nfpi.stages import Planned, Stage
from nfpi.workflow.changes import list_differences
from nfpi.workflow.plan import Plan, Wildcards

Param = Callable[..., Any]


@dataclass(frozen=True)
class Declarations:
    """The params of the rules, as in `params: **declarations.of(TrainFlow)`."""

    plan: Plan

    @cached_property
    def planned(self) -> Planned:
        """The settings from which stages select the options of a job."""
        return Planned(self.plan.config)

    def of(self, stage: type[Stage], **wildcards: str) -> dict[str, Param]:
        """Return the params of a rule whose shell command has `{params.settings:q} {params.execution:q}`.

        settings: options with the stage's declaration, i.e. all that the result depends on apart from its input files.
            Snakemake compares them with those of the last run, and makes the output again if they differ.
        execution: options that do not affect the result. Snakemake does not compare a function of `threads`.
        changed: the settings that differ from those recorded in the output, for the message of the rule.

        Args:
            stage: the stage.
            wildcards: values in addition to the wildcards of the rule.
        """

        def select(of_job: Wildcards) -> Stage:
            values = {name: of_job[name] for name in of_job.keys()} | wildcards  # noqa: SIM118
            return stage.plan(self.planned, values)

        def settings(wildcards: Wildcards) -> list[str]:
            declaration = select(wildcards).declaration
            return ["--settings", json.dumps(declaration, ensure_ascii=False), "--seal", compute_seal(declaration)]

        def execution(wildcards: Wildcards, threads: int) -> list[str]:
            extensions = [text for file in self.plan.config.extensions for text in ("--extensions", file.as_posix())]
            options = select(wildcards).execution
            return [*(["--execution", json.dumps(options)] if options else []), *extensions]

        def changed(wildcards: Wildcards, output: Any) -> str:
            changes = list(find_changes(output.get("manifest"), select(wildcards).declaration))
            return f" [{', '.join(changes)}]" if changes else ""

        return {"settings": settings, "execution": execution, "changed": changed}
