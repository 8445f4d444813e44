"""Rebuilding of tables, claims and figures from evidence, by the same functions as in the workflow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from nfpi.config.settings import Config
from nfpi.evidence.checksums import FILE as SUMS
from nfpi.evidence.checksums import EvidenceError, check_files, read_checksums
from nfpi.evidence.copies import check_predictions, list_differing_settings
from nfpi.figures.claims import draw_claims
from nfpi.figures.drawn import Drawn, FigureInputs, draw_figure, save_drawn
from nfpi.results.claims.judging import judge_claims
from nfpi.results.claims.layout import NAME as CLAIMS
from nfpi.results.claims.layout import write_claims
from nfpi.results.claims.sides import Evidence as EvidenceOfClaims
from nfpi.results.recorded.collect import collect
from nfpi.results.recorded.csv_files import write_csv
from nfpi.results.recorded.predictions import Predictions, read_predictions
from nfpi.results.recorded.runs import RecordedRun, find_runs
from nfpi.results.recorded.settings import FILE as SETTINGS
from nfpi.results.recorded.settings import read_settings
from nfpi.results.tables.building import accuracy_table, read_reference
from nfpi.results.tables.layout import write_table
from nfpi.results.tables.rows import list_table_rows
from nfpi.runs import FIGURES_FOLDER, METRICS_FILE, PREDICTIONS_FILE, TABLES_FOLDER, Layout, Run

_REFERENCE = "workflow/reference/paper.csv"
_SHOWN_VALUES = 4


def find_evidence(folder: Path) -> list[Path]:
    """Return `folder` itself if it contains evidence, otherwise its subfolders with evidence, one per preset.

    Raises:
        EvidenceError: neither contains evidence.
    """
    if (folder / SUMS).is_file() or (folder / SETTINGS).is_file():
        return [folder]
    folders = sorted({path.parent for name in (SUMS, SETTINGS) for path in folder.glob(f"*/{name}")})
    if not folders:
        raise EvidenceError(
            f"{folder}: expected a folder written by `nfpi evidence`, or one with such folders, received neither"
        )
    return folders


def find_reference(chosen: Path | None) -> Path:
    """Return the file of the paper's numbers: the chosen one, or that of the checkout.

    Raises:
        FileNotFoundError: the file is missing.
    """
    places = [chosen] if chosen is not None else [Path(__file__).parents[3] / _REFERENCE, Path(_REFERENCE)]
    for place in places:
        if place.is_file():
            return place
    hint = "" if chosen is not None else ": give --reference, or run the command in a clone"
    raise FileNotFoundError(f"{places[-1]}: expected the paper's numbers, received no such file{hint}")


@dataclass(frozen=True)
class RebuiltResults:
    """A verified folder of evidence, from which results are rebuilt.

    Args:
        folder: folder written by :func:`nfpi.evidence.copies.gather_evidence`.
        reference: the paper's numbers (:func:`nfpi.results.tables.building.read_reference`).
        config: the settings of the preset, with the seeds of the evidence.
        runs: runs of the evidence.
    """

    folder: Path
    reference: pd.DataFrame
    config: Config
    runs: Sequence[RecordedRun]

    @classmethod
    def read(cls, folder: Path, reference: Path) -> RebuiltResults:
        """Read a folder of evidence, and verify every file.

        Raises:
            EvidenceError: a file is missing, damaged, or not listed.
            FormatError: the settings in the folder are of another version.
            MetricsError: a file of predictions is damaged.
            OSError: a file cannot be read.
        """
        listed = read_checksums(folder)
        check_files(folder, listed)
        runs = find_runs(folder)
        files = [f"{item.run.folder}/{file}" for item in runs for file in (METRICS_FILE, PREDICTIONS_FILE)]
        for name in (SETTINGS, *files):
            if name not in listed and (folder / name).exists():
                raise EvidenceError(f"{folder / name}: expected a file listed in {SUMS}, received one that is not")
        for item in runs:
            if item.fault:
                raise EvidenceError(item.fault)
            if not item.divergence:
                check_predictions(item)
        return cls(folder, read_reference(reference), read_settings(folder).config, runs)

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """Metrics of all runs."""
        return collect((item.run for item in self.runs), self.folder)

    def make_table(self, name: str) -> pd.DataFrame:
        """Make a table of the preset; rows without runs have the status `missing`."""
        rows = list_table_rows(self.config, name)
        return accuracy_table(self.metrics, self.config.tables[name], self.reference, rows, self.folder)

    def judge_claims(self) -> pd.DataFrame:
        """Judge the claims of the preset."""
        config = self.config
        rows = {name: list_table_rows(config, name) for name in config.tables}
        evidence = EvidenceOfClaims(self.metrics, config.tables, rows, self.reference, self._read_predictions)
        return judge_claims(config.claims, evidence)

    def _read_predictions(self, run: Run) -> Predictions:
        return read_predictions(self.folder / run.folder / PREDICTIONS_FILE)

    @cached_property
    def software(self) -> pd.DataFrame:
        """Commits, devices and versions of packages, with their numbers of runs."""
        counts = Counter(pair for item in self.runs for pair in item.software.items())
        rows = [{"name": name, "value": value, "runs": runs} for (name, value), runs in sorted(counts.items())]
        return pd.DataFrame(rows, columns=["name", "value", "runs"])

    @property
    def differing(self) -> dict[Run, list[str]]:
        """The runs trained with other settings than those in settings.json, with the names of these.

        Compared is what metrics.json records of a flow's training; the settings of fits of the prior are unknown.
        """
        flows = [item for item in self.runs if item.run.flow in self.config.flows and item.run.classifier is None]
        trained = [item for item in flows if not item.run.is_imported]
        differing = {item.run: list_differing_settings(item, self._plan(item)) for item in trained}
        return {run: names for run, names in differing.items() if names}

    def _plan(self, item: RecordedRun) -> RecordedRun:
        """Return a run as settings.json plans it."""
        assert item.run.flow is not None
        training = self.config.resolve_training(item.run.dataset, item.run.flow).model_dump(mode="json")
        return replace(item, record={"settings": {"training": training}})

    def describe(self) -> str:
        """Describe runs, seeds, commits, devices and differing settings in one line."""
        seeds = ", ".join(map(str, self.config.seeds))
        made = [
            _describe_software(self.software, name, plural)
            for name, plural in (("commit", "commits"), ("device", "devices"))
        ]
        made_by = " and ".join(filter(None, made))  # empty if all runs diverged
        differing = _describe_differing(self.differing)
        return f"{self.folder}: {len(self.runs)} runs, seeds {seeds}{made_by and f', {made_by}'}{differing}"

    def write(self, output: Path) -> None:
        """Write all tables, the claims, the figures that only need tables, and versions.csv.

        Args:
            output: folder in which files have the same paths as in results/{preset}.
        """
        config, layout = self.config, Layout(output)
        for name, table in config.tables.items():
            write_table(self.make_table(name), output / TABLES_FOLDER, name, table.title)
        if config.claims:
            verdicts = self.judge_claims()
            write_claims(verdicts, output)
            save_drawn(Drawn({CLAIMS: draw_claims(verdicts)}), output, CLAIMS)
        for name, figure in config.figures.items():
            files = {key: [Path(file) for file in files] for key, files in figure.files(config, layout).items()}
            if all(file.is_file() for paths in files.values() for file in paths):
                reads = {key: value.model_dump(mode="json") for key, value in figure.reads(config).items()}
                save_drawn(draw_figure(name, figure, FigureInputs(files, reads)), output / FIGURES_FOLDER, name)
        write_csv(self.software, output / "versions.csv")


def draw_following(results: Mapping[str, RebuiltResults], output: Path) -> None:
    """Draw the figure `following` over all presets that have it.

    Args:
        results: rebuilt results by preset.
        output: folder of the figure, in which each preset's results were written to a folder of its name.
    """
    tables = [
        Path(file)
        for preset, rebuilt in results.items()
        if (figure := rebuilt.config.figures.get("following")) is not None
        for file in figure.files(rebuilt.config, Layout(output / preset))["table"]
    ]
    if tables:
        save_drawn(draw_figure("following", {}, FigureInputs({"table": tables})), output, "following")


def _describe_differing(differing: Mapping[Run, Sequence[str]]) -> str:
    """Return e.g. `; 2 runs of other settings than settings.json, first digits/…/seed=3 (training.epochs)`."""
    if not differing:
        return ""
    run, names = next(iter(differing.items()))
    return f"; {len(differing)} runs of other settings than {SETTINGS}, first {run.folder} ({', '.join(names)})"


def _describe_software(software: pd.DataFrame, name: str, plural: str) -> str:
    """Return e.g. `commit 6b47a33`, or `2 commits (…)`."""
    values = [_shorten_commit(value) for value in software.loc[software["name"] == name, "value"]]
    if len(values) < 2:
        return f"{name} {values[0]}" if values else ""
    more = ", ..." if len(values) > _SHOWN_VALUES else ""
    return f"{len(values)} {plural} ({', '.join(values[:_SHOWN_VALUES])}{more})"


def _shorten_commit(value: str) -> str:
    commit, dirty, _ = value.partition("-dirty")
    return commit[:7] + dirty if len(commit) == 40 else value
