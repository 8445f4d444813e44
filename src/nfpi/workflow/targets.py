"""Targets of the workflow: the tables, figures and claims of the preset, by name; what is shown of them at the end."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from nfpi.config.base import ConfigError, suggest
from nfpi.config.experiments import FIGURES
from nfpi.runs import FIGURES_FOLDER, TABLES_FOLDER
from nfpi.stages.jobs import Wildcards
from nfpi.stages.tables_and_figures import JudgeClaims, MakeFigure, MakeTable
from nfpi.workflow.plan import Plan

CLAIMS = JudgeClaims.command
"""Name of the target of the claims."""
COSTS = "costs"
"""Name of the target of the table of hours and memory."""


@dataclass(frozen=True)
class Targets:
    """Names of the targets, and the files of each, as in `targets.table(name)`."""

    plan: Plan

    @property
    def names(self) -> list[str]:
        """Names of the tables and figures of the preset, and of the target of its claims if it has any."""
        config = self.plan.config
        return [*config.tables, *config.figures, *([CLAIMS] if config.claims else [])]

    def table(self, name: str) -> dict[str, str]:
        """Return the files of a table, by format."""
        return self.plan.outputs(MakeTable, TABLES_FOLDER, name=name)

    def claims(self) -> dict[str, str]:
        """Return the files of the verdicts on the claims, by format, and of their figure."""
        root = self.plan.layout.root.as_posix()
        return {name: f"{root}/{file}" for name, file in JudgeClaims.get_output_files().items()}

    def figure(self, name: str) -> dict[str, str]:
        """Return the files of a figure, by name."""
        names = self.plan.config.figures[name].output_names(name) | MakeFigure.get_output_files(name=name)
        return {key: f"{self.plan.fill_path(FIGURES_FOLDER)}/{file}" for key, file in names.items()}

    def files(self, *names: str) -> list[str]:
        """Return all files of these targets; a table includes the figures drawn from it."""
        paths: list[str] = []
        for name in names:
            figures = [name] if name in self.plan.config.figures else []
            if name in self.plan.config.tables:
                paths += self.table(name).values()
                figures = self.plan.config.list_table_figures(name)
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
        root = self.plan.layout.root
        chosen = [name for name in self.names if not requested or name in requested or "all" in requested]
        costs = [f"{root.as_posix()}/{COSTS}.md"] if COSTS in requested else []
        made = [path for path in map(Path, [*costs, *self.files(*chosen)]) if path.is_file()]
        lines, paths = [], []
        for path in (path for path in made if path.suffix == ".md"):
            kind = path.stem if path.parent == root else "table"
            lines += ["", *path.read_text(encoding="utf-8").rstrip().splitlines()]
            paths.append(f"{kind + ':':8}{path} (and {'.csv' if kind == COSTS else '.csv, .tex, .html'})")
        paths += [f"figure: {path}" for path in made if path.suffix == ".png"]
        return "\n".join([*lines, "", *paths]) if paths else ""

    def reject_unknown(self, rules: list[str]) -> Callable[[Wildcards], list[str]]:
        """Make the input function of the rule for unknown targets; it raises ConfigError and names the nearest target.

        Args:
            rules: names of other targets.
        """
        known = ["all", *self.names, *rules]

        def raise_unknown(wildcards: Wildcards) -> list[str]:
            name = wildcards["target"]
            hint = ": add it under `figures:`" if name in FIGURES else suggest(name, known)
            raise ConfigError(f"preset {self.plan.preset} has no target '{name}'{hint}")

        return raise_unknown
