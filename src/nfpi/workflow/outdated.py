"""Which products are outdated: made with other settings, from other inputs or files of the user, or edited since."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nfpi.runtime.files import open_regular
from nfpi.runtime.manifests import OTHER_FILES, Manifest, ManifestError
from nfpi.runtime.seals import Seals
from nfpi.stages.planned import Wildcards
from nfpi.workflow.sources import Sources

_SMALL = 2**20
"""bytes of the largest files that planning reads"""


@dataclass(frozen=True)
class Outdated:
    """Compares the products of rules with their manifests, and the user's files with what was made from them.

    Args:
        sources: the user's files.
        faults: why products are outdated, or nothing, by the paths of their manifests, as far as they were compared.
    """

    sources: Sources
    faults: dict[str, str] = field(default_factory=dict)
    _seals: Seals = field(default_factory=Seals, repr=False)

    def find_fault(self, rule: Any, wildcards: Wildcards, path: str) -> str:
        """Describe why the product of a rule is to be made again; empty: it is not, or does not exist.

        Args:
            rule: a rule of Snakemake with the params of :meth:`nfpi.workflow.declarations.Declarations.of`.
            wildcards: wildcards of the job.
            path: path of the product's manifest.
        """
        if path not in self.faults:
            self.faults[path] = self._compare(rule, wildcards, path)
        return self.faults[path]

    def _compare(self, rule: Any, wildcards: Wildcards, path: str) -> str:
        manifest = self._seals.read(Path(path))
        if manifest is None:
            return ""
        if rule.params.get("content") and self.sources.have_changed(wildcards):
            return f"{path}: made from other files of the data set"
        weights, known = rule.input.get("published"), manifest.made_from.get(OTHER_FILES)
        if weights and known is not None and known != self.sources.digest_weights(weights(wildcards)):
            return f"{path}: made from other weights"
        *_, seal = rule.params.settings(wildcards)
        return self._seals.find_fault(Path(path), seal) or find_edited(Path(path), manifest)


def find_edited(path: Path, manifest: Manifest) -> str:
    """Describe the first small file of a manifest that was changed since; empty: none.

    Larger files than a MiB are left to the stages that read them, and so are files that are missing or unreadable.
    """
    for name in manifest.files:
        with suppress(OSError), open_regular(path.parent / name) as file:
            if os.fstat(file.fileno()).st_size <= _SMALL:
                try:
                    manifest.check_file(name, file, path)
                except ManifestError as error:
                    return str(error)
    return ""
