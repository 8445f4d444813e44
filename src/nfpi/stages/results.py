"""Commands on a folder of results: its page, its integrity, and the evidence that is kept of it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic_settings import CliPositionalArg

from nfpi.config.base import ConfigError
from nfpi.results.recorded.calls import find_roots, read_settings
from nfpi.runtime.faults import escape_controls
from nfpi.runtime.files import write_atomically
from nfpi.runtime.manifests import SUFFIX, ManifestError, find_faults, find_manifests
from nfpi.stages.base import Command
from nfpi.stages.keys import SettingsKeys, find_job

if TYPE_CHECKING:
    from nfpi.evidence.rebuilding import RebuiltResults

logger = logging.getLogger(__name__)


class WritePage(Command):
    """Write the page of a folder of results, index.html.

    The page is a single file of all present results: tables, figures, and each run with its curves, samples and
    predictions. Labels and units of your own metrics need `nfpi --extensions FILE page …`.
    """

    command = "page"
    group = "look at results"

    results: CliPositionalArg[Path]
    """results/{preset}, or the folder that contains the results of several presets"""

    def run(self) -> None:
        """Write the page, and print its path.

        Raises:
            FileNotFoundError: the folder has no results.
        """
        from nfpi.page.write import write_page

        for root in find_roots(self.results):
            logger.info("%s", write_page(root, SettingsKeys()))


class Verify(Command):
    """Check results against their manifests and settings.

    Files must be those that the stages wrote, and results must be made with the settings in settings.json and from the
    inputs that are there. Prints one line per fault, and exits with 1 if there is any.
    """

    command = "verify"
    group = "look at results"

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


class KeepEvidence(Command):
    """Keep what the tables of a preset are made from.

    Writes the metrics of all runs into one csv file, the predictions that are compared image by image, the settings of
    the preset, and checksums. Called again, it adds new runs, such as more seeds.
    """

    command = "evidence"
    group = "look at results"

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

        config = gather_evidence(
            self.results,
            self.output,
            read_settings(self.results),
            SettingsKeys(),
            with_other_settings=self.with_other_settings,
        )
        logger.info("%s: seeds %s", self.output, ", ".join(map(str, config.seeds)))


class RebuildTables(Command):
    """Make tables, claims and figures from evidence alone.

    Takes seconds, without training. With --update, fills in the blocks between `<!-- evidence: PRESET/TABLE -->` and
    `<!-- end -->` of Markdown files.
    """

    command = "tables"
    group = "look at results"

    evidence: CliPositionalArg[Path]
    """output of `nfpi evidence`, or a folder that contains several such outputs"""
    output: Path | None = None
    """folder for tables, claims and figures, with one folder per preset if `evidence` contains folders of evidence"""
    update: list[Path] = []
    """Markdown file whose blocks are filled in; may be repeated"""

    def run(self) -> None:
        """Write the tables, claims and figures, and update the blocks of Markdown files."""
        from nfpi.evidence.keeping import EvidenceError
        from nfpi.evidence.rebuilding import RebuiltResults, draw_following, fill_blocks, find_evidence

        if self.output is None and not self.update:
            raise ConfigError("tables: expected --output or --update, received neither")
        folders = {folder.resolve().name: folder for folder in find_evidence(self.evidence)}
        results = {preset: RebuiltResults.read(folder) for preset, folder in folders.items()}

        def get_results(preset: str) -> RebuiltResults:
            if preset not in results:
                received = ", ".join(results)
                raise EvidenceError(f"{self.evidence}: expected evidence of preset {preset}, received {received}")
            return results[preset]

        # before anything is written, since a block may name evidence that is not there
        filled = {path: fill_blocks(path.read_text(encoding="utf-8"), get_results) for path in self.update}
        if self.output is not None:
            for preset, rebuilt in results.items():
                output = self.output if folders[preset] == self.evidence else self.output / preset
                rebuilt.write(output)
                seeds = ", ".join(map(str, rebuilt.config.seeds))
                logger.info("wrote %s: %d runs, seeds %s", output, len(rebuilt.runs), seeds)
            if len(results) > 1:
                draw_following(results, self.output)
        for path, (text, blocks) in filled.items():
            write_atomically(path, text)
            logger.info("filled %d blocks of %s", blocks, path)
