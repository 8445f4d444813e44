"""Targets of a call of Snakemake, their files, and the values of its wildcards.

Functions that Snakemake calls receive its wildcards, a mapping of strings. This package does not import Snakemake.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from nfpi.config.base import Augmentation, ConfigError, suggest
from nfpi.config.classifiers import CLASSIFIERS
from nfpi.config.experiments import FIGURES
from nfpi.config.resolution import Resolved
from nfpi.config.settings import Config
from nfpi.results.tables.rows import compose_use, find_best_flow
from nfpi.runs import (
    BASELINE,
    FIGURES_FOLDER,
    NO_FLOW,
    OWN,
    REFERENCE_AUGMENTATION,
    REFITS,
    SOURCE,
    SPLITS_PATTERN,
    TABLES_FOLDER,
    VARIANTS,
    WEIGHT_PATTERN,
    name_refitted,
)
from nfpi.stages.base import Stage
from nfpi.stages.jobs import Planned, Wildcards
from nfpi.stages.tables_and_figures import JudgeClaims, MakeFigure, MakeTable

CLAIMS = JudgeClaims.command
"""Name of the target of the claims."""


def shorten_path(file: Path) -> str:
    """Return a path relative to the working directory if the file is below it, otherwise an absolute path.

    Commands and messages are shorter with it.
    """
    file, here = file.resolve(), Path.cwd().resolve()
    return (file.relative_to(here) if file.is_relative_to(here) else file).as_posix()


@dataclass(frozen=True)
class Patterns:
    """Regular expressions of the wildcards, each method named after what matches.

    Args:
        config: the settings.
    """

    config: Config

    def wildcard_constraints(self) -> dict[str, str]:
        """Return a regular expression for each wildcard."""
        config = self.config
        flow, prior = _make_pattern(config.flows), _make_pattern(self._list_priors())
        source = SOURCE.format(flow=f"(?:{flow})", prior=f"(?:{prior})", weight=WEIGHT_PATTERN)
        return {
            "dataset": _make_pattern(config.datasets),
            "splits": SPLITS_PATTERN,
            "flow": flow,
            "prior": prior,
            "weight": WEIGHT_PATTERN,
            "start": _make_pattern(BASELINE),
            # with the augmentation of the reference classifier, a folder below a flow has measures of its samples
            "source": f"{NO_FLOW}|{source}(?!.*/augmentation={REFERENCE_AUGMENTATION}/)",
            "classifier": _make_pattern(config.classifiers),
            "augmentation": _make_pattern(get_args(Augmentation)),
            "variants": _make_pattern(VARIANTS.values()),
            "seed": r"0|[1-9][0-9]*",
            "temperature": WEIGHT_PATTERN,
            "table": _make_pattern(config.tables),
        }

    def made_by(self, stage: type[Stage], wildcard: str) -> str:
        """Return a regular expression of the values of `dataset` or `prior` with which a stage makes its outputs.

        Args:
            stage: one of the stages that share their places (:meth:`nfpi.stages.base.Stage.makes`).
            wildcard: `dataset` or `prior`.
        """
        planned, values = Planned(self.config), {"dataset": self.config.datasets, "prior": self._list_priors()}
        return _make_pattern(
            [name for name in values[wildcard] if stage.makes(planned, {wildcard: name, "splits": "splits"})]
        )

    def _list_priors(self) -> list[str]:
        """Return the names of all priors in paths, also of those that are estimated again after a training."""
        names = [OWN, *self.config.priors, *BASELINE.values()]
        return [*names, *(name_refitted(name, refit) for name in names for refit in REFITS)]

    def published_models(self) -> str:
        """Return a regular expression of the classifier models with published weights."""
        return _make_pattern([name for name in CLASSIFIERS if "published" in CLASSIFIERS[name].traits])


def _make_pattern(names: object) -> str:
    """Return a regular expression that matches these names; without names it matches nothing."""
    return "|".join(map(re.escape, names)) or "(?!)"  # type: ignore[call-overload]


@dataclass(frozen=True)
class Targets:
    """Names of the targets, and the files of each, as in `targets.table(name)`."""

    resolved: Resolved

    @property
    def names(self) -> list[str]:
        """Names of the tables and figures of the preset, and of the target of its claims if it has any."""
        config = self.resolved.config
        return [*config.tables, *config.figures, *([CLAIMS] if config.claims else [])]

    def table(self, name: str) -> dict[str, str]:
        """Return the files of a table, by format."""
        return self.resolved.layout.list_files(TABLES_FOLDER, MakeTable.get_output_files(name=name))

    def claims(self) -> dict[str, str]:
        """Return the files of the verdicts on the claims, by format, and of their figure."""
        root = self.resolved.layout.root.as_posix()
        return {name: f"{root}/{file}" for name, file in JudgeClaims.get_output_files().items()}

    def figure(self, name: str) -> dict[str, str]:
        """Return the files of a figure, by name."""
        names = self.resolved.config.figures[name].output_names(name) | MakeFigure.get_output_files(name=name)
        return self.resolved.layout.list_files(FIGURES_FOLDER, names)

    def files(self, *names: str) -> list[str]:
        """Return all files of these targets; a table includes the figures drawn from it."""
        paths: list[str] = []
        for name in names:
            figures = [name] if name in self.resolved.config.figures else []
            if name in self.resolved.config.tables:
                paths += self.table(name).values()
                figures = self.resolved.config.list_table_figures(name)
            if name == CLAIMS:
                paths += self.claims().values()
            paths += [file for figure in figures for file in self.figure(figure).values()]
        return list(dict.fromkeys(paths))

    def describe(self, requested: Collection[str]) -> str:
        """Return the requested tables and verdicts, and the paths of their files and figures, if they exist.

        A call with `--until` or `--omit-from` does not make all of them.

        Args:
            requested: targets of the call; empty: all.
        """
        root = self.resolved.layout.root
        chosen = [name for name in self.names if not requested or name in requested or "all" in requested]
        made = [path for path in map(Path, self.files(*chosen)) if path.is_file()]
        lines, paths = [], []
        for path in (path for path in made if path.suffix == ".md"):
            kind = path.stem if path.parent == root else "table"
            lines += ["", *path.read_text(encoding="utf-8").rstrip().splitlines()]
            paths.append(f"{kind + ':':8}{path} (and .csv, .tex, .html)")
        paths += [f"figure: {path}" for path in made if path.suffix == ".png"]
        paths += self._suggest(path for path in made if path.suffix == ".md" and path.parent != root)
        return "\n".join([*lines, "", *paths]) if paths else ""

    def _suggest(self, tables: Iterable[Path]) -> list[str]:
        """Return the command that classifies a photo by the flow that is best on the validation split.

        It is empty for a preset of the project, and without such a flow.
        """
        if self.resolved.file is None:
            return []
        import pandas as pd

        root = self.resolved.layout.root
        frames = {path.stem: pd.read_csv(path.with_suffix(".csv")) for path in tables}
        best = find_best_flow(root, self.resolved.config, frames)
        return [] if best is None else [f"use it: {compose_use(self.resolved.config, root, best)}"]

    def reject_unknown(self, rules: list[str]) -> Callable[[Wildcards], list[str]]:
        """Make the input function of the rule for unknown targets; it raises ConfigError and names the nearest target.

        Args:
            rules: names of other targets.
        """
        known = ["all", *self.names, *rules]

        def raise_unknown(wildcards: Wildcards) -> list[str]:
            name = wildcards["target"]
            hint = ": add it under `figures:`" if name in FIGURES else suggest(name, known)
            listed = f"nfpi targets --preset {self.resolved.file or self.resolved.preset}"
            raise ConfigError(f"preset {self.resolved.preset} has no target '{name}'{hint}; `{listed}` lists all")

        return raise_unknown
