"""The settings of a call of Snakemake, and the paths of inputs and outputs that follow from them.

Functions that Snakemake calls receive its wildcards, a mapping of strings. This package does not import Snakemake.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from nfpi.config.resolution import Resolved
from nfpi.config.settings import Config
from nfpi.runs import Layout
from nfpi.stages.base import Stage
from nfpi.stages.jobs import Wildcards


def shorten_path(file: Path) -> str:
    """Return a path relative to the working directory if the file is below it, otherwise an absolute path.

    Commands and messages are shorter with it.
    """
    file, here = file.resolve(), Path.cwd().resolve()
    return (file.relative_to(here) if file.is_relative_to(here) else file).as_posix()


@dataclass(frozen=True)
class Plan:
    """The settings of one call of Snakemake, and the paths that follow from them.

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
