"""Rebuilding of tables, claims and figures from evidence, by the same functions as in the workflow.

Tables and claims also fill blocks of Markdown files. A block begins with the line `<!-- evidence: PRESET/TABLE -->` and
ends with the line `<!-- end -->`. TABLE is a table of the preset or `claims`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from nfpi.config.settings import Config
from nfpi.evidence.keeping import SUMS, EvidenceError, read_kept
from nfpi.figures.claims import draw_claims
from nfpi.figures.drawn import Drawn, FigureInputs, draw_figure, save_drawn
from nfpi.results.claims.judging import judge_claims
from nfpi.results.claims.layout import CLAIMS, lay_out_claims, write_claims
from nfpi.results.claims.sides import ClaimData
from nfpi.results.recorded.calls import read_settings
from nfpi.results.recorded.predictions import Predictions
from nfpi.results.recorded.runs import RecordedRun, make_frame
from nfpi.results.tables.building import accuracy_table, read_reference
from nfpi.results.tables.layout import to_markdown, write_table
from nfpi.results.tables.markup import tables_to_markdown
from nfpi.results.tables.rows import list_table_rows
from nfpi.runs import FIGURES_FOLDER, TABLES_FOLDER, Layout, Run
from nfpi.runtime.location import find_workflow

_REFERENCE = "workflow/reference/paper.csv"
BLOCK = re.compile(
    r"^<!-- evidence: (?P<preset>\S+)/(?P<name>\S+) -->\n"
    r"(?:(?!<!-- ).*\n)*"  # lines that begin no other comment
    r"(?=<!-- end -->$)",
    re.MULTILINE,
)
"""A block of a Markdown file, without its last line."""


def find_evidence(folder: Path) -> list[Path]:
    """Return `folder` itself if it contains evidence, otherwise its subfolders with evidence, one per preset.

    Raises:
        EvidenceError: neither contains evidence.
    """
    if (folder / SUMS).is_file():
        return [folder]
    folders = sorted(path.parent for path in folder.glob(f"*/{SUMS}"))
    if not folders:
        raise EvidenceError(
            f"{folder}: expected a folder written by `nfpi evidence`, or one with such folders, received neither"
        )
    return folders


@dataclass(frozen=True)
class RebuiltResults:
    """A verified folder of evidence, from which results are rebuilt.

    Args:
        reference: the paper's numbers (:func:`nfpi.results.tables.building.read_reference`).
        config: the settings of the preset, with the seeds of the evidence.
        runs: runs of the evidence.
        predictions: predictions by run.
    """

    reference: pd.DataFrame
    config: Config
    runs: Sequence[RecordedRun]
    predictions: Mapping[Run, Predictions]

    @classmethod
    def read(cls, folder: Path) -> RebuiltResults:
        """Read a folder written by :func:`nfpi.evidence.keeping.gather_evidence`, and verify every file.

        Raises:
            EvidenceError, CsvError, MetricsError: see :func:`nfpi.evidence.keeping.read_kept`.
            FormatError: the settings in the folder are of another version.
            OSError: a file cannot be read, or there is none of the paper's numbers.
        """
        kept, reference = read_kept(folder), read_reference(find_workflow() / _REFERENCE)
        return cls(reference, read_settings(folder).config, kept.runs, kept.predictions)

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """Metrics of all runs."""
        return make_frame({item.run: item.record for item in self.runs})

    def make_table(self, name: str) -> pd.DataFrame:
        """Make a table of the preset; rows without runs have the status `missing`."""
        rows = list_table_rows(self.config, name)
        return accuracy_table(self.metrics, self.config.tables[name], self.reference, rows, self.predictions.get)

    def judge_claims(self) -> pd.DataFrame:
        """Judge the claims of the preset."""
        config = self.config
        rows = {name: list_table_rows(config, name) for name in config.tables}
        data = ClaimData(self.metrics, config.tables, rows, self.reference, self.predictions.__getitem__)
        return judge_claims(config.claims, data)

    def write(self, output: Path) -> None:
        """Write all tables, the claims and the figures that only need tables.

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


def fill_blocks(text: str, read: Callable[[str], RebuiltResults]) -> tuple[str, int]:
    """Fill the blocks of a Markdown text from the evidence, and return it with the number of blocks.

    Args:
        text: the text.
        read: function that reads the evidence of a preset.

    Raises:
        EvidenceError: unknown table, or claims of a preset without claims.
    """

    def fill(found: re.Match[str]) -> str:
        preset, name = found["preset"], found["name"]
        return f"<!-- evidence: {preset}/{name} -->\n\n{_make_block(read(preset), preset, name)}\n"

    return BLOCK.subn(fill, text)


def _make_block(evidence: RebuiltResults, preset: str, name: str) -> str:
    """Return the Markdown of a table, or of the claims."""
    tables = evidence.config.tables
    if name == CLAIMS and evidence.config.claims:
        return tables_to_markdown(lay_out_claims(evidence.judge_claims()))
    if name not in tables:
        known = ", ".join([*tables, *([CLAIMS] if evidence.config.claims else [])])
        raise EvidenceError(f"expected a table of the evidence of {preset} ({known}), received '{name}'")
    return to_markdown(evidence.make_table(name), tables[name].title)
