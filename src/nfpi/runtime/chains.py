"""Chains of products: whether each was made from the inputs that are there now."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from nfpi.runtime.manifests import Input, Manifest, ManifestError, compute_digest, read_manifest

ONE_RUN = ("data", "initial state", "prior", "model", "refitted model")
"""Kinds of product that exist once per run: no two files of a run depend on different products of such a kind."""


class Chain:
    """Compares products with the inputs that are there now, down the chain of inputs.

    Manifests are read once. Outputs are not read: :func:`nfpi.runtime.manifests.find_faults` verifies them.
    """

    def __init__(self) -> None:
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

    def find_fault(self, path: Path) -> str:
        """Describe in one line why the outputs of a manifest should be made again; empty if they should not.

        Without a manifest, there is no fault of this kind.
        """
        manifest = self.read(path)
        if manifest is None:
            return ""
        for place, recorded in self._list_inputs(path):
            made = self.read(place)
            if made is not None and recorded.content not in (made.content, compute_digest(made.files)):
                return f"{path}: expected {manifest.product} made from the {made.product} of {place}, received another"
        return ""

    def find_first_fault(self, path: Path) -> str:
        """Describe the first fault of the outputs of a manifest and of all that they were made from; empty: none."""
        path = _normalize(path)
        if path not in self._faults:
            self._faults[path] = ""  # a forged manifest may name itself
            inputs = (place for place, _ in self._list_inputs(path))
            self._faults[path] = next(filter(None, map(self.find_first_fault, inputs)), "") or self.find_fault(path)
        return self._faults[path]

    def check_together(self, inputs: Iterable[Input], folder: Path) -> None:
        """Check that the inputs of a stage, and what they were made from, are the same where they must be.

        Args:
            inputs: inputs of the stage.
            folder: folder of the stage's manifest.

        Raises:
            ManifestError: two inputs were made from different products of a kind in :data:`ONE_RUN`; both are named.
        """
        known: dict[str, tuple[str, Path]] = {}
        for item in inputs:
            where = _normalize(folder / item.path)
            for _, found in ((where, item), *self.walk(where)) if not item.apart else ():
                content, first = known.setdefault(found.product, (found.content, where.parent))
                if found.product in ONE_RUN and found.content != content:
                    raise ManifestError(
                        f"{where.parent}: expected the same {found.product} as {first}, received what was made from "
                        "another one"
                    )

    def walk(self, path: Path, above: tuple[Path, ...] = ()) -> Iterator[tuple[Path, Input]]:
        """Yield the direct and indirect inputs of a product that are of its run, with the paths of their manifests."""
        for place, recorded in self._list_inputs(path):
            if not recorded.apart and place not in above:  # a forged manifest may name itself
                yield place, recorded
                yield from self.walk(place, (*above, place))

    def _list_inputs(self, path: Path) -> Iterator[tuple[Path, Input]]:
        """Yield the products that a product was made from, with the paths of their manifests."""
        manifest = self.read(path)
        for found in manifest.inputs if manifest is not None else ():
            if found.path:
                yield _normalize(path.parent / found.path), found


def _normalize(path: Path) -> Path:
    return Path(os.path.normpath(path))
