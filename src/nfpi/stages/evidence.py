"""Run the commands that keep evidence and rebuild tables from it."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from pathlib import Path

from nfpi.config import Config, ConfigError, list_built_in_presets, resolve
from nfpi.evidence.blocks import fill_blocks
from nfpi.evidence.checksums import EvidenceError
from nfpi.evidence.copies import gather_evidence
from nfpi.evidence.extensions import describe_changed_extensions
from nfpi.evidence.rebuilding import RebuiltResults, find_evidence, find_reference
from nfpi.results.recorded.runs import RecordedRun, find_runs
from nfpi.results.recorded.settings import FILE, StoredSettings, read_settings
from nfpi.runtime.files import write_atomically
from nfpi.stages.options import KeepEvidence, RebuildTables

logger = logging.getLogger(__name__)


def keep_evidence(command: KeepEvidence) -> None:
    """Copy the evidence, and log what was copied."""
    root = command.results
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: expected a folder of results, received none")
    stored = _find_settings(root)
    done = gather_evidence(
        root,
        command.output,
        stored,
        with_class_log_prob=command.class_log_prob,
        with_other_settings=command.with_other_settings,
    )
    _warn_of_changed_extensions(command.output, find_runs(command.output), read_settings(command.output).config)
    others = sorted(set(done.seeds) - set(stored.config.seeds))
    if others:
        listed, known = (", ".join(map(str, seeds)) for seeds in (others, stored.config.seeds))
        logger.warning(
            "%s: it has seeds %s, too, which the preset (seeds %s) does not have", command.output, listed, known
        )
    missing = f", {done.missing} runs that the tables need are missing" if done.missing else ""
    logger.info(
        "%s: %d runs of %s (%d of them new%s), seeds %s, %.1f MB%s",
        command.output,
        done.runs,
        root,
        len(done.added),
        f", {len(done.replaced)} replaced, {len(done.changed)} of these with other values" if done.replaced else "",
        ", ".join(map(str, done.seeds)),
        done.size / 1e6,
        missing,
    )


def rebuild_tables(command: RebuildTables) -> None:
    """Write the tables, claims and figures, and update the blocks of Markdown files."""
    if command.output is None and not command.update:
        raise ConfigError("tables: expected --output or --update, received neither")
    folders, reference = find_evidence(command.evidence), find_reference(command.reference)
    by_preset = {folder.resolve().name: folder for folder in folders}

    @functools.cache
    def read_results(preset: str) -> RebuiltResults:
        if preset not in by_preset:
            known = ", ".join(by_preset)
            raise EvidenceError(
                f"{command.evidence}: expected the evidence of preset {preset} in a folder named {preset}, "
                f"received {known}"
            )
        results = RebuiltResults.read(by_preset[preset], reference)
        _warn_of_changed_extensions(results.folder, results.runs, results.config)
        return results

    # before anything is written, since a block may name evidence that is not there
    filled = {path: fill_blocks(path, read_results) for path in command.update}
    if command.output is not None:
        for preset, folder in by_preset.items():
            output = command.output if folder == command.evidence else command.output / preset
            read_results(preset).write(output)
            logger.info("%s", read_results(preset).describe())
            logger.info("wrote %s", output)
    for path, (text, changed) in filled.items():
        if changed:
            write_atomically(path, text)
        logger.info("%s: %d blocks changed", path, changed)


def _warn_of_changed_extensions(folder: Path, runs: Sequence[RecordedRun], config: Config) -> None:
    for line in describe_changed_extensions(runs, config):
        logger.warning("%s: %s", folder, line)


def _find_settings(root: Path) -> StoredSettings:
    """Return the settings of the last call of the workflow, or else of the preset with the name of the folder.

    Raises:
        ConfigError: neither is found.
    """
    if (root / FILE).is_file():
        return read_settings(root)
    name = root.resolve().name
    if Path("config.yaml").is_file() and name in list_built_in_presets(Path("presets")):
        return StoredSettings.of(name, resolve(Path("config.yaml"), Path("presets"), {"preset": name}).config)
    raise ConfigError(f"{root / FILE}: expected the settings that `snakemake` writes, received no such file")
