"""The commands that keep evidence and rebuild tables from it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic_settings import CliPositionalArg

from nfpi.config.base import ConfigError
from nfpi.results.recorded.calls import read_settings
from nfpi.runtime.files import write_atomically
from nfpi.stages.base import Command
from nfpi.stages.keys import SettingsKeys

if TYPE_CHECKING:
    from nfpi.evidence.rebuilding import RebuiltResults

logger = logging.getLogger(__name__)


class KeepEvidence(Command):
    """Keep what the tables of a preset are made from.

    Writes the metrics of all runs into one csv file, the predictions that are compared image by image, the settings of
    the preset, and checksums. Called again, it adds new runs, such as more seeds.
    """

    command = "evidence"

    results: CliPositionalArg[Path]
    """results/{preset}"""
    output: Path
    """folder of the evidence, e.g. docs/evidence/{preset}"""
    with_other_settings: bool = False
    """also keep runs whose settings differ from those of the workflow's last call or of the evidence; runs that the
    evidence already has are replaced"""

    def run(self) -> None:
        """Write the evidence, and log what was written."""
        from nfpi.evidence.keeping import gather_evidence

        done = gather_evidence(
            self.results,
            self.output,
            read_settings(self.results),
            SettingsKeys(),
            with_other_settings=self.with_other_settings,
        )
        counts = f"{len(done.added)} new, {len(done.replaced)} replaced, {len(done.changed)} of these with other values"
        seeds = f"seeds {', '.join(map(str, done.seeds))}"
        logger.info("%s: %d runs (%s, %d missing), %s", self.output, done.runs, counts, done.missing, seeds)


class RebuildTables(Command):
    """Make tables, claims and figures from evidence alone.

    Takes seconds, without training. With --update, fills in the blocks between `<!-- evidence: PRESET/TABLE -->` and
    `<!-- end -->` of Markdown files.
    """

    command = "tables"

    evidence: CliPositionalArg[Path]
    """output of `nfpi evidence`, or a folder that contains several such outputs"""
    output: Path | None = None
    """folder for tables, claims and figures, with one folder per preset if `evidence` contains folders of evidence"""
    update: list[Path] = []
    """Markdown file whose blocks are filled in; may be repeated"""
    reference: Path | None = None
    """the paper's numbers (csv); None: workflow/reference/paper.csv of the clone"""

    def run(self) -> None:
        """Write the tables, claims and figures, and update the blocks of Markdown files."""
        from nfpi.evidence.keeping import EvidenceError
        from nfpi.evidence.rebuilding import RebuiltResults, draw_following, fill_blocks, find_evidence, find_reference

        if self.output is None and not self.update:
            raise ConfigError("tables: expected --output or --update, received neither")
        reference = find_reference(self.reference)
        folders = {folder.resolve().name: folder for folder in find_evidence(self.evidence)}
        results = {preset: RebuiltResults.read(folder, reference) for preset, folder in folders.items()}

        def get_results(preset: str) -> RebuiltResults:
            if preset not in results:
                received = ", ".join(results)
                raise EvidenceError(f"{self.evidence}: expected evidence of preset {preset}, received {received}")
            return results[preset]

        # before anything is written, since a block may name evidence that is not there
        filled = {path: fill_blocks(path, get_results) for path in self.update}
        if self.output is not None:
            for preset, rebuilt in results.items():
                output = self.output if folders[preset] == self.evidence else self.output / preset
                rebuilt.write(output)
                logger.info("%s", rebuilt.describe())
                logger.info("wrote %s", output)
            if len(results) > 1:
                draw_following(results, self.output)
        for path, (text, changed) in filled.items():
            if changed:
                write_atomically(path, text)
            logger.info("%s: %d blocks changed", path, changed)
