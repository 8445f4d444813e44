"""Targets: every table and figure of the preset is one, by its name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from nfpi.config import FIGURES, ConfigError, suggest
from nfpi.stages.options import JudgeClaims, MakeTable
from nfpi.workflow.plan import Plan, Wildcards

CLAIMS = JudgeClaims.command
"""Name of the target of a preset's claims."""


@dataclass(frozen=True)
class Targets:
    """Names that can be asked for, and the files that each stands for."""

    plan: Plan

    @property
    def names(self) -> list[str]:
        """All tables and figures of the preset, and its claims where it has some; figures that are made along with a
        table are not named apart."""
        config = self.plan.config
        return [*config.tables, *config.figures, *([CLAIMS] if config.claims else [])]

    def table(self, name: str) -> dict[str, str]:
        """A table in its three forms."""
        return self.plan.outputs(MakeTable, "tables", name=name)

    def claims(self) -> dict[str, str]:
        """The verdicts on the claims in their forms, and their figure."""
        root = self.plan.layout.root.as_posix()
        return {name: f"{root}/{file}" for name, file in JudgeClaims.output_files().items()}

    def labels_of_table(self, wildcards: Wildcards) -> dict[str, str]:
        """What a table is called in reports."""
        name = wildcards["table"]
        return {"table": name, "title": self.plan.config.tables[name].title or name}

    def drawings(self, figure: str) -> list[str]:
        """Names of the pictures of a figure."""
        return self.plan.config.figures[figure].picture_names(figure)

    def figure(self, name: str) -> dict[str, str]:
        """The files of a figure, by their names: its pictures in two forms, and its numbers where it has a table."""
        folder = self.plan.path("figures")
        files = {
            f"{drawing}_{suffix}": f"{folder}/{drawing}.{suffix}"
            for suffix in ("png", "pdf")
            for drawing in self.drawings(name)
        }
        return files | ({"table": f"{folder}/{name}.csv"} if self.plan.config.figures[name].has_table else {})

    def files(self, *names: str) -> list[str]:
        """All that is made for these tables (with the figures drawn from them) and figures."""
        made: list[str] = []
        for name in names:
            if name == CLAIMS:
                made += self.claims().values()
                continue
            figures = [name]
            if name in self.plan.config.tables:
                made += self.table(name).values()
                figures = self.plan.config.figures_of(name)
            made += [file for figure in figures for file in self.figure(figure).values()]
        return list(dict.fromkeys(made))

    def check_names(self, rules: Iterable[str]) -> None:
        """Make sure that no table and no figure is called like a rule.

        Raises:
            ConfigError: one is.
        """
        taken = {"all", "unknown_target", CLAIMS, *rules}
        for group, names in (("tables", self.plan.config.tables), ("figures", self.plan.config.figures)):
            for name in names:
                if name in taken or (group == "figures" and name in self.plan.config.tables):
                    raise ConfigError(f"{group}.{name}: this is the name of another target: choose another one")

    def unknown(self, rules: Iterable[str]) -> Callable[[Wildcards], list[str]]:
        """Input function of a target that there is not.

        Args:
            rules: names of other targets.
        """
        known = ["all", *self.names, *rules]

        def refuse(wildcards: Wildcards) -> list[str]:
            name = wildcards["target"]
            hint = ": name it under `figures:`" if name in FIGURES else suggest(name, known)
            targets = "" if "known:" in hint else f"; targets: {', '.join(known)}"
            raise ConfigError(f"preset {self.plan.preset} has no target '{name}'{hint}{targets}")

        return refuse
