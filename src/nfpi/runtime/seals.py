"""Seals: whether a product was made with the settings that it should have, and from the inputs that are there now.

Manifests record both. They are compared down the chain of inputs, without reading the outputs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from nfpi.runtime.manifests import Manifest, ManifestError, compute_digest, read_manifest


class Seals:
    """Checks whether outputs were made with the settings that they should have, and from the inputs that are there now.

    Manifests are read once. Outputs are not read: :func:`nfpi.runtime.manifests.find_faults` verifies them.

    Args:
        find_seal: returns the seal that a manifest, given by path and contents, should have; None if that is unknown.
    """

    def __init__(self, find_seal: Callable[[Path, Manifest], str | None] = lambda path, manifest: None) -> None:
        self._find_seal = find_seal
        self._manifests: dict[Path, Manifest | None] = {}
        self._faults: dict[Path, str] = {}

    def read(self, path: Path) -> Manifest | None:
        """Return the manifest at a path; None: it is missing or damaged."""
        path = _normalize(path)
        if path not in self._manifests:
            try:
                self._manifests[path] = read_manifest(path)
            except (ManifestError, OSError):
                self._manifests[path] = None
        return self._manifests[path]

    def find_fault(self, path: Path, seal: str | None = None) -> str:
        """Describe in one line why the outputs of a manifest should be made again; empty if they should not.

        A missing or damaged manifest has no fault of this kind.

        Args:
            path: path of the manifest.
            seal: the seal that it should have; None: see `find_seal`.
        """
        manifest = self.read(path)
        if manifest is None:
            return ""
        seal = seal or self._find_seal(path, manifest)
        if seal is not None and seal != manifest.seal:
            return f"{path}: expected {manifest.product} made with the present settings, received other ones"
        for place, content in _list_inputs(path, manifest).items():
            made = self.read(place)
            if made is not None and made.content != content and compute_digest(made.files) != content:
                return f"{path}: expected {manifest.product} made from the {made.product} of {place}, received another"
        return ""

    def find_first_fault(self, path: Path) -> str:
        """Describe the first fault of the outputs of a manifest and of all that they were made from; empty: none."""
        path = _normalize(path)
        if path not in self._faults:
            self._faults[path] = ""  # a forged manifest may name itself
            manifest = self.read(path)
            inputs = {} if manifest is None else _list_inputs(path, manifest)
            self._faults[path] = next(filter(None, map(self.find_first_fault, inputs)), "") or self.find_fault(path)
        return self._faults[path]


def _list_inputs(path: Path, manifest: Manifest) -> dict[Path, str]:
    """Return the contents of the direct inputs, by the paths of their manifests."""
    return {_normalize(path.parent / name): content for name, content in manifest.inputs.items()}


def _normalize(path: Path) -> Path:
    return Path(os.path.normpath(path))
