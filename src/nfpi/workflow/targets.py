"""Targets of the workflow: the tables, figures and claims of the preset, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from nfpi.config import FIGURES, ConfigError, suggest
from nfpi.results.tables.rows import check_tables
from nfpi.runs import FIGURES_FOLDER, TABLES_FOLDER
from nfpi.stages import JudgeClaims, MakeTable
from nfpi.workflow.plan import Plan, Wildcards

CLAIMS = JudgeClaims.command
"""Name of the target of the claims."""


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

    def labels_of_table(self, wildcards: Wildcards) -> dict[str, str]:
        """Return the labels of a table in reports."""
        name = wildcards["table"]
        return {"table": name, "title": self.plan.config.tables[name].title or name}

    def picture_names(self, figure: str) -> list[str]:
        """Return the names of the pictures of a figure."""
        return self.plan.config.figures[figure].picture_names(figure)

    def figure(self, name: str) -> dict[str, str]:
        """Return the files of a figure, by name: its pictures as PNG and PDF, and its table, if any, as CSV."""
        folder = self.plan.fill_path(FIGURES_FOLDER)
        files = {
            f"{picture}_{suffix}": f"{folder}/{picture}.{suffix}"
            for suffix in ("png", "pdf")
            for picture in self.picture_names(name)
        }
        return files | ({"table": f"{folder}/{name}.csv"} if self.plan.config.figures[name].has_table else {})

    def files(self, *names: str) -> list[str]:
        """Return all files of these targets; a table includes the figures drawn from it."""
        paths: list[str] = []
        for name in names:
            if name == CLAIMS:
                paths += self.claims().values()
                continue
            figures = [name]
            if name in self.plan.config.tables:
                paths += self.table(name).values()
                figures = self.plan.config.list_table_figures(name)
            paths += [file for figure in figures for file in self.figure(figure).values()]
        return list(dict.fromkeys(paths))

    def check_names(self, rules: Iterable[str]) -> None:
        """Check that no table and no figure has the name of a rule or of another target, and the rows of tables.

        Raises:
            ConfigError: a name is taken, or rows of a table cannot be told apart.
        """
        check_tables(self.plan.config)
        taken = {"all", "unknown_target", CLAIMS, *rules}
        for group, names in (("tables", self.plan.config.tables), ("figures", self.plan.config.figures)):
            for name in names:
                if name in taken or (group == "figures" and name in self.plan.config.tables):
                    raise ConfigError(f"{group}.{name}: another target has this name: choose another name")

    def reject_unknown(self, rules: Iterable[str]) -> Callable[[Wildcards], list[str]]:
        """Make the input function of the rule for unknown targets; it raises ConfigError and lists the known targets.

        Args:
            rules: names of other targets.
        """
        known = ["all", *self.names, *rules]

        def raise_unknown(wildcards: Wildcards) -> list[str]:
            name, dropped = wildcards["target"], self.plan.resolved.dropped_claims
            targets = f"; targets: {', '.join(known)}"
            if name == CLAIMS and dropped:
                claim, missing = list(dropped.items())[-1]
                hint = f": inherited claims were dropped, such as {claim} ({missing})"
            elif name == CLAIMS:
                hint = ": it has no claims"
            elif name in FIGURES:
                hint = ": add it under `figures:`"
            else:
                hint = suggest(name, known)
                targets = "" if "known:" in hint else targets
            raise ConfigError(f"preset {self.plan.preset} has no target '{name}'{hint}{targets}")

        return raise_unknown
