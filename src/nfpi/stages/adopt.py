"""The command that gives keys to results of the format before keys; to be removed after the next release."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pydantic_settings import CliPositionalArg

from nfpi.config.base import strip_folders
from nfpi.results.recorded.calls import read_settings
from nfpi.runtime.manifests import Input, compute_digest, find_manifests, read_manifest, write_manifest
from nfpi.stages.base import Command
from nfpi.stages.keys import find_job
from nfpi.stages.needs import Need
from nfpi.stages.planned import Planned


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
        old = {path: json.loads(path.read_text(encoding="utf-8")) for path in find_manifests(self.results)}
        old = {path: record for path, record in old.items() if record.get("format") == 1}
        adopted = [path for path in old if _adopt(path, old, planned)]
        print(f"{self.results}: {len(adopted)} of {len(old)} products have a key; `snakemake` makes the others again")


def _adopt(path: Path, old: dict[Path, dict[str, Any]], planned: Planned) -> bool:
    """Write a manifest in today's format if its seal and its inputs are those of the settings; return whether it is."""
    if not path.exists() or path not in old:
        return path.exists()
    record, job = old[path], find_job(planned, path.relative_to(planned.root).as_posix())
    stage = job.plan(planned) if job is not None else None
    if job is None or stage is None or stage.command != record["stage"] or stage.reads_files:
        return False
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
            if content not in (product.content, old[made]["content"], compute_digest(old[made]["files"])):
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
