"""Run `nfpi costs`: sum up the time and memory of the jobs behind each table."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

from nfpi.config.settings import Config
from nfpi.results.costs import Dependencies, lay_out_costs, read_jobs, sum_costs
from nfpi.results.markup.files import table_to_markdown
from nfpi.results.recorded.csv_files import write_csv
from nfpi.results.recorded.progress import require_root
from nfpi.results.recorded.settings import FILE, read_settings
from nfpi.results.tables.rows import list_table_rows
from nfpi.runs import BASELINE, Run
from nfpi.runtime.files import write_atomically, written_together
from nfpi.stages.options import ShowCosts

logger = logging.getLogger(__name__)


def show_costs(command: ShowCosts) -> None:
    """Print the costs, and write them to `output` if it is given.

    Raises:
        FileNotFoundError: the folder does not exist, or has the results of several presets.
        FormatError: its settings.json is damaged.
    """
    root = command.results
    require_root(root)
    jobs = read_jobs(root)
    if not jobs:
        print(f"{root}: no job has ended yet, so there are no costs to show")
        return
    frame = sum_costs(jobs, _find_dependencies(root))
    table = lay_out_costs(frame)
    text = f"**Costs of {root.resolve().name}**\n\n{table_to_markdown(table)}\n\n{' '.join(table.notes)}\n"
    print(text, end="")
    if command.output is not None:
        with written_together():
            write_csv(frame, command.output / "costs.csv")
            write_atomically(command.output / "costs.md", text)
        logger.info("wrote %s", command.output / "costs.{csv,md}")


def _find_dependencies(root: Path) -> dict[str, Dependencies]:
    """Return what each table of the preset depends on; empty if the settings are not known."""
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
