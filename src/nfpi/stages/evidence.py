"""Commands that keep results as evidence, make tables of it, and give keys to results of earlier versions."""

from __future__ import annotations

import json
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_settings import CliPositionalArg

from nfpi.config.base import ConfigError, strip_folders
from nfpi.results.recorded.calls import read_settings
from nfpi.runtime.files import write_atomically
from nfpi.runtime.manifests import Input, compute_digest, describe_damage, find_manifests, read_manifest, write_manifest
from nfpi.stages.base import Command
from nfpi.stages.jobs import Need, Planned
from nfpi.stages.keys import SettingsKeys, find_job

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
        counts = f"{done.runs} runs ({done.added} new, {done.replaced} replaced)"
        logger.info("%s: %s, seeds %s", self.output, counts, ", ".join(map(str, done.seeds)))


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
        filled = {path: fill_blocks(path.read_text(encoding="utf-8"), get_results) for path in self.update}
        if self.output is not None:
            for preset, rebuilt in results.items():
                output = self.output if folders[preset] == self.evidence else self.output / preset
                rebuilt.write(output)
                logger.info("%s", rebuilt.describe())
                logger.info("wrote %s", output)
            if len(results) > 1:
                draw_following(results, self.output)
        for path, (text, blocks) in filled.items():
            write_atomically(path, text)
            logger.info("filled %d blocks of %s", blocks, path)


class Adopt(Command):
    """Give keys to results of an earlier version.

    Results made with the settings in settings.json, and from the inputs that are there, are not made again. Tables,
    figures and claims are, and so is what was made from files of your own.
    """

    command = "adopt"

    results: CliPositionalArg[Path]
    """results/{preset}"""

    def run(self) -> None:
        """Write the manifests in today's format, and print how many have a key."""
        planned = Planned(read_settings(self.results).config, self.results)
        old: dict[Path, dict[str, Any]] = {}
        for path in find_manifests(self.results):
            with suppress(ValueError, OSError):  # a damaged one: its product is made again
                old[path] = json.loads(path.read_text(encoding="utf-8"))
        old = {path: record for path, record in old.items() if record.get("format") == 1}
        adopted = [path for path in old if _adopt(path, old, planned)]
        print(f"{self.results}: {len(adopted)} of {len(old)} products have a key; `snakemake` makes the others again")


def _adopt(path: Path, old: dict[Path, dict[str, Any]], planned: Planned) -> bool:
    """Write a manifest in today's format if its seal and its inputs are those of the settings; return whether it is."""
    if path not in old:  # adopted before, downloaded, or made by this version
        return not describe_damage(path)
    record, job = old[path], find_job(planned, path.relative_to(planned.root).as_posix())
    stage = planned.plan(job) if job is not None else None
    if job is None or stage is None or stage.command != record["stage"] or stage.list_sources():
        return False
    if not describe_damage(path):  # adopted for another product
        return True
    if record["seal"] != compute_digest([stage.command, stage.version, strip_folders(stage.declaration)])[:16]:
        return False
    inputs: list[Input] = []
    for name, needs in stage.list_needs(planned, job.wildcards).items():
        for need in needs:
            made = planned.root / need.job.manifest if isinstance(need, Need) else Path()
            place = Path(os.path.relpath(made, path.parent)).as_posix()
            if not isinstance(need, Need) or not _adopt(made, old, planned) or place not in record["inputs"]:
                return False
            product, content = read_manifest(made), record["inputs"][place]
            known = old.get(made, {"content": product.content, "files": product.files})
            if content not in (known["content"], compute_digest(known["files"])):
                return False
            inputs.append(Input(name=name, product=product.product, path=place, key=product.key, content=content))
    keys: dict[str, list[str]] = {}
    for item in dict.fromkeys(inputs):
        keys.setdefault(item.name, []).append(item.key)
    files = [path.parent / file for file in record["files"] if file != "sources.npz"]
    timed = [path.parent / stage.outputs[name].format(**job.wildcards) for name in stage.timed]
    about: dict[str, Any] = {
        "settings": record["settings"],
        "temporary": [path.parent / file for file in record["temporary"]],
    }
    write_manifest(
        path,
        stage.command,
        record["product"],
        files,
        key=stage.compute_key(keys),
        timed=timed,
        digests={(path.parent / name).absolute(): digest for name, digest in record["files"].items()},
        inputs=list(dict.fromkeys(inputs)),
        **about,
    )
    return True
