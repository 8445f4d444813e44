"""Commands on a folder of results: its page, its costs and its integrity."""

from __future__ import annotations

import csv
import io
import itertools
import logging
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic_settings import CliPositionalArg

from nfpi.results.recorded.calls import SETTINGS_FILE, read_settings, require_root
from nfpi.results.recorded.csv_files import disarm
from nfpi.runtime.faults import escape_controls
from nfpi.runtime.files import write_atomically, written_together
from nfpi.runtime.manifests import SUFFIX, ManifestError, find_faults, find_manifests
from nfpi.stages.base import Command
from nfpi.stages.jobs import Job, Planned
from nfpi.stages.keys import SettingsKeys, find_job, list_needed_jobs
from nfpi.stages.tables_and_figures import MakeTable

logger = logging.getLogger(__name__)


Row = Sequence[str | float]


def print_rows(
    heading: Sequence[str], rows: Sequence[Row], styles: Iterable[str | None] = itertools.repeat(None)
) -> None:
    """Print rows as a table with four decimals on a terminal, else as tab-separated lines with all digits.

    Args:
        heading: names of the columns.
        rows: at least one row of values.
        styles: style of each row on a terminal, such as `bold red`.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    if not sys.stdout.isatty():
        print(format_lines(heading, rows, "\t"), end="")
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name, value in zip(heading, rows[0], strict=True):
        table.add_column(name, justify="right" if isinstance(value, float) else "left", overflow="fold")
    table.columns[0].no_wrap = True  # paths of runs are to be copied
    for row, style in zip(rows, styles, strict=False):
        cells = (f"{value:.4f}" if isinstance(value, float) else escape_controls(value) for value in row)
        table.add_row(*cells, style=style)
    # brackets in names are not markup
    Console(markup=False, highlight=False).print(table)


def format_lines(heading: Sequence[str], rows: Sequence[Row], delimiter: str) -> str:
    """Format rows with the csv module; floats keep all digits."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerows([heading, *([_disarm(cell, delimiter) for cell in row] for row in rows)])
    return text.getvalue()


def _disarm(cell: str | float, delimiter: str) -> str | float:
    """Escape control characters of a text, and begin one with an apostrophe that a spreadsheet would compute."""
    if not isinstance(cell, str):
        return cell
    return escape_controls(disarm(cell) if delimiter == "," else cell)


class WritePage(Command):
    """Write the page of a folder of results, index.html.

    The page is a single file of all present results: tables, figures, and each run with its curves, samples and
    predictions. Labels and units of your own metrics need `nfpi --extensions FILE page …`.
    """

    command = "page"

    results: CliPositionalArg[Path]
    """results/{preset}"""

    def run(self) -> None:
        """Write the page, and print its path.

        Raises:
            FileNotFoundError: the folder does not exist, or has the results of several presets.
        """
        from nfpi.page.write import write_page

        require_root(self.results)
        logger.info("%s", write_page(self.results, SettingsKeys()))


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
        from nfpi.results.recorded.csv_files import write_csv
        from nfpi.results.tables.markup import tables_to_markdown

        root = self.results
        require_root(root)
        jobs = read_jobs(root)
        if jobs.empty:
            print(f"{root}: no job has ended yet, so there are no costs to show")
            return
        frame = sum_costs(jobs, find_needed_jobs(root))
        text = tables_to_markdown([(f"Costs of {root.resolve().name}", lay_out_costs(frame))])
        print(text, end="")
        if self.output is not None:
            with written_together():
                write_csv(frame, self.output / "costs.csv")
                write_atomically(self.output / "costs.md", text)
            logger.info("wrote %s", self.output / "costs.{csv,md}")


def find_needed_jobs(root: Path) -> dict[str, set[str]]:
    """Return the jobs that each table of the preset depends on, as `folder/stage`; empty without settings."""
    if not (root / SETTINGS_FILE).is_file():
        return {}
    planned, found = Planned(read_settings(root).config, root), {}
    for name in planned.config.tables:
        jobs = list_needed_jobs(planned, Job.of(MakeTable, {"table": name}))
        found[name] = {job.locate(job.stage.command.replace("-", "_")) for job in jobs}
    return found


class Verify(Command):
    """Check results against their manifests and settings.

    Files must be those that the stages wrote, and results must be made with the settings in settings.json and from the
    inputs that are there. Prints one line per fault, and exits with 1 if there is any.
    """

    command = "verify"

    results: CliPositionalArg[Path]
    """folder of results, or a part of it"""

    def run(self) -> None:
        """Check all files listed in manifests below the folder, and what they were made with.

        Raises:
            FileNotFoundError: the folder is missing.
            ManifestError: the folder contains no manifest, or a file is faulty; all faults are printed first.
        """
        if not self.results.is_dir():
            raise FileNotFoundError(f"{self.results}: expected a folder of results, received none")
        manifests = find_manifests(self.results)
        if not manifests:
            raise ManifestError(f"{self.results}: expected a folder of results, received one without a manifest")
        files, faults, chain = 0, 0, SettingsKeys()
        for path in manifests + self._list_missing(chain):
            checked, found = find_faults(path) if path.exists() else (0, [])
            found += [] if found else filter(None, [chain.find_fault(path)])
            files, faults = files + checked, faults + len(found)
            for fault in found:
                print(escape_controls(fault))
        if faults:
            raise ManifestError(f"{self.results}: expected {files} intact files, received {faults} faults")
        print(f"{self.results}: {files} files of {len(manifests)} stages agree with their manifests")
        for reason in chain.unknown.values():
            print(escape_controls(f"not compared with settings: {reason}"))

    def _list_missing(self, chain: SettingsKeys) -> list[Path]:
        """Return the manifests that files below the folder should have, but do not, by the settings above them."""
        found = set()
        for file in self.results.rglob("*"):
            keys = chain.find_keys(file.parent) if file.is_file() and not file.name.endswith(SUFFIX) else None
            if keys is not None:
                job = find_job(keys.planned, file.absolute().relative_to(keys.planned.root).as_posix())
                found.update([keys.planned.root / job.manifest] if job is not None else [])
        return sorted(path for path in found if not path.exists())
