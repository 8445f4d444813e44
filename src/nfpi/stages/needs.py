"""The jobs of the workflow: a stage with the wildcards of its place, and what it needs from other jobs."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Self

from nfpi.runs import compile_template

if TYPE_CHECKING:
    from nfpi.stages.base import Stage
    from nfpi.stages.planned import Planned

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

    def plan(self, planned: Planned) -> Stage:
        """Create the stage with the options that settings give it, without paths."""
        if self not in planned.known:
            planned.known[self] = self.stage.plan(planned, self.wildcards)
        stage: Stage = planned.known[self]
        return stage


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
