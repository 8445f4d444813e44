"""The command that sums up the time and memory of the jobs behind each table."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic_settings import CliPositionalArg

from nfpi.config.settings import Config
from nfpi.results.recorded.progress import require_root
from nfpi.results.recorded.settings import FILE, read_settings
from nfpi.results.tables.rows import list_table_rows
from nfpi.runs import BASELINE, Run
from nfpi.runtime.files import write_atomically, written_together
from nfpi.stages.base import Command

if TYPE_CHECKING:
    from nfpi.results.costs import Dependencies

logger = logging.getLogger(__name__)


class ShowCosts(Command):
    """Print the time and memory of the jobs behind tables.

    Prints wall-clock and CPU hours and memory by table, stage and device, from the records in the folder of results.
    Runs nothing.
    """

    command = "costs"

    results: CliPositionalArg[Path]
    """results/{preset}"""
    output: Path | None = None
    """folder for costs.csv and costs.md"""

    def run(self) -> None:
        """Print the costs, and write them to `output` if it is given.

        Raises:
            FileNotFoundError: the folder does not exist, or has the results of several presets.
            FormatError: its settings.json is damaged.
        """
        from nfpi.results.costs import lay_out_costs, read_jobs, sum_costs
        from nfpi.results.markup.files import table_to_markdown
        from nfpi.results.recorded.csv_files import write_csv

        root = self.results
        require_root(root)
        jobs = read_jobs(root)
        if not jobs:
            print(f"{root}: no job has ended yet, so there are no costs to show")
            return
        frame = sum_costs(jobs, _find_dependencies(root))
        table = lay_out_costs(frame)
        text = f"**Costs of {root.resolve().name}**\n\n{table_to_markdown(table)}\n\n{' '.join(table.notes)}\n"
        print(text, end="")
        if self.output is not None:
            with written_together():
                write_csv(frame, self.output / "costs.csv")
                write_atomically(self.output / "costs.md", text)
            logger.info("wrote %s", self.output / "costs.{csv,md}")


def _find_dependencies(root: Path) -> dict[str, Dependencies]:
    """Return what each table of the preset depends on; empty if the settings are not known."""
    from nfpi.results.costs import Dependencies

    if not (root / FILE).is_file():
        return {}
    config = read_settings(root).config
    runs = {name: [run for row in list_table_rows(config, name) for run in row.runs] for name in config.tables}
    starts = {prior: config.start_of(prior) for prior in (*BASELINE.values(), *config.priors)}
    return {name: Dependencies(tuple(_add_fine_tuned_runs(config, members)), starts) for name, members in runs.items()}


def _add_fine_tuned_runs(config: Config, runs: Iterable[Run]) -> Iterator[Run]:
    """Yield the runs, each followed by the run of the classifier that it fine-tunes, if any."""
    for run in runs:
        yield run
        other = config.fine_tuned_from(run)
        if other is not None:
            yield other
