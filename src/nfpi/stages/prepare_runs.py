"""Commands before a run: the targets of a preset with their times, and a check of the machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nfpi
from nfpi.config.base import ConfigError
from nfpi.config.resolution import Resolved, resolve
from nfpi.results.numbers import format_duration
from nfpi.stages.base import Command
from nfpi.stages.progress import print_rows
from nfpi.stages.results import find_needed_jobs

_HEADING = ("target", "content", "took")
_OTHERS = {
    "all": "all tables and figures, and the claims",
    "costs": "hours and memory of the jobs behind the tables",
    "check_device": "check of a machine for the trainings",
    "benchmark": "speed of steps and fits",
}


class ListTargets(Command):
    """List the targets of a preset, with their times.

    Prints what `snakemake TARGET` makes, and the time that the jobs of tables took so far. Jobs that tables share are
    counted in each.
    """

    command = "targets"

    preset: str | None = None
    """name of a preset, or path of your own; None: the preset that `config` or config.yaml names"""
    config: dict[str, Any] = {}
    """settings that override the preset, as with `snakemake --config`"""

    def run(self) -> None:
        """Print the targets, as a table on a terminal and as tab-separated lines otherwise.

        Raises:
            ConfigError: the settings are invalid, or their file is not found.
        """
        chosen = {} if self.preset is None else {"preset": self.preset}
        file = find_config_file()
        resolved = resolve(file, file.parent / "presets", self.config | chosen)
        print_rows(_HEADING, list(_list_rows(resolved)))


def _list_rows(resolved: Resolved) -> Iterator[tuple[str, ...]]:
    config, took = resolved.config, _sum_times(resolved.results / resolved.preset)
    for name, table in config.tables.items():
        yield name, table.title, took.get(name, "")
    for name, figure in config.figures.items():
        table_name = getattr(figure, "table", None)
        yield name, figure.title + (f" (made with {table_name})" if table_name else ""), ""
    if config.claims:
        yield "claims", "verdicts on the claims", ""
    for name, content in _OTHERS.items():
        yield name, content, took.get(name, "")


def _sum_times(root: Path) -> dict[str, str]:
    """Return the wall-clock time of the jobs behind each table, and of all; empty if none has run."""
    from nfpi.results.costs import ALL, read_jobs, sum_costs

    jobs = read_jobs(root)
    if jobs.empty:
        return {}
    sums = sum_costs(jobs, find_needed_jobs(root))
    sums = sums[sums["stage"] == ALL].set_index("table")["hours"]
    return {str(table): format_duration(3600 * hours) for table, hours in sums.items()}


_FILE = "config.yaml"


class CheckDevice(Command):
    """Check this machine for the trainings of a preset.

    Takes minutes. Prints one line per finding: ok; slow or FAILED, with a remedy; or missing, with what is missing.
    Exits with 1 if one FAILED. All steps are made on random images.
    """

    command = "check-device"

    preset: str | None = None
    """name of a preset, or path of your own; None: the preset that `config` or config.yaml names"""
    config: dict[str, Any] = {}
    """settings that override the preset, as with `snakemake --config`"""
    config_file: Path | None = None
    """config.yaml, with the folder of presets beside it; None: that of this folder, or of the installed clone"""

    def run(self) -> None:
        """Print one line per finding.

        Raises:
            ConfigError: the settings are invalid, train no flow, or their file is not found.
            ValueError: a check failed.
        """
        from nfpi.checks.questions import answer_questions

        chosen = {} if self.preset is None else {"preset": self.preset}
        file = self.config_file or find_config_file()
        failed = []
        for line in answer_questions(resolve(file, file.parent / "presets", self.config | chosen)):
            print(f"{line.verdict:8}{line.check}: {line.text}", flush=True)
            if line.verdict == "FAILED" and line.check not in failed:
                failed.append(line.check)
        if failed:
            raise ValueError(f"check-device: {', '.join(failed)} FAILED; see the lines above")


def find_config_file() -> Path:
    """Return the config.yaml of this folder, or of the installed clone.

    Raises:
        ConfigError: there is none, or no folder of presets beside it.
    """
    places = [Path(), Path(nfpi.__file__).parents[2]]  # the latter is the clone of an editable installation
    for folder in places:
        if (folder / _FILE).is_file() and (folder / "presets").is_dir():
            return folder / _FILE
    raise ConfigError(
        f"{_FILE}: expected the root of a clone as working directory, received {Path.cwd()} (or give --config-file)"
    )
