"""Manifests: records of what a stage wrote and what it read, written after all its outputs.

A manifest lies in the output folder of its stage. It lists the SHA-256 of every output and the digests of the inputs,
so that later stages reject outputs that are damaged, incomplete, or made from other inputs. It also holds its own
checksum. Files that no manifest lists, such as a model saved in Python, are not verified.

It also tells with which settings (`seal`) and from which inputs (`inputs`, `made_from`) the outputs were made
(:mod:`nfpi.runtime.seals`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from nfpi.runtime.files import file_digest, open_below, open_regular, remove_below, write_atomically
from nfpi.runtime.formats import parse_json

logger = logging.getLogger(__name__)

MANIFEST_FORMAT = 1
SUFFIX = ".manifest.json"
OTHER_FILES = "other files"
"""product of inputs that no manifest lists, such as weights given by the user"""


class ManifestError(ValueError):
    """A file that is damaged, not a complete output, or made from something else; the message is one line."""


class Manifest(BaseModel):
    """Record of the outputs of a stage.

    Attributes:
        format: format version of this file and of the files that it lists.
        stage: name of the subcommand.
        product: kind of the outputs, in a word or two: `data`, `initial state`, `prior`, `model`, ...
        files: SHA-256 of each output, by its path below the folder of the manifest.
        content: digest of the reproducible outputs, i.e. those without times.
        made_from: `content` of each input, by its `product`: of all direct inputs, and of those indirect ones that must
            be the same for all direct ones. Inputs without a manifest are under OTHER_FILES. Several inputs of one
            kind with different contents have the digest of these contents.
        facts: properties of the run that the outputs belong to: `seed`, `lambda`.
        temporary: the `files` that are removed once the stage that reads them has ended.
        settings: all that the outputs depend on apart from the inputs (`nfpi.stages.base.Stage.declaration`).
        seal: digest of these settings and of the stage's version (`nfpi.stages.base.Stage.compute_seal`).
        inputs: `content` of all direct inputs, by the paths of their manifests from the folder of this manifest; for
            what is made from many runs, the digest of their `files`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: int
    stage: str
    product: str
    files: dict[str, str]
    content: str
    made_from: dict[str, str]
    facts: dict[str, Any]
    temporary: list[str] = []
    settings: dict[str, Any] = {}
    seal: str = ""
    inputs: dict[str, str] = {}

    @model_validator(mode="after")
    def _check_temporary(self) -> Self:
        unlisted = [name for name in self.temporary if name not in self.files]
        if unlisted:
            raise ValueError(f"temporary: expected some of files, received {unlisted[0]}")
        return self

    def check_file(self, name: str, file: BufferedReader, path: Path) -> None:
        """Compare a file with its digest.

        Args:
            name: name of the file in `files`.
            file: the opened file.
            path: path of the manifest.

        Raises:
            ManifestError: the file has another digest.
            OSError: the file cannot be read.
        """
        if hashlib.file_digest(file, "sha256").hexdigest() != self.files[name]:
            raise ManifestError(
                f"{path.parent / name}: expected what {self.stage} wrote, received another content: the file is "
                f"damaged, or was changed, or {self.stage} did not end; make it again (its digest is in {path.name})"
            )


@dataclass(frozen=True)
class Product:
    """A complete, intact output of a stage that another one reads.

    Attributes:
        path: path of the manifest.
        manifest: the manifest.
    """

    path: Path
    manifest: Manifest


@dataclass(frozen=True)
class Origin:
    """What the outputs of a stage are made from, see :class:`Manifest`.

    Attributes:
        made_from: contents of the inputs, by their products.
        facts: properties of the run.
        inputs: contents of the direct inputs, by the paths of their manifests.
    """

    made_from: dict[str, str]
    facts: dict[str, Any]
    inputs: dict[Path, str]


def write_manifest(
    path: Path,
    stage: str,
    product: str,
    outputs: Iterable[Path],
    *,
    timed: Collection[Path],
    made_from: Mapping[str, str],
    facts: Mapping[str, Any],
    digests: Mapping[Path, str],
    inputs: Mapping[Path, str] | None = None,
    temporary: Collection[Path] = (),
    settings: Mapping[str, Any] | None = None,
    seal: str = "",
) -> None:
    """Write the manifest of a stage whose outputs are all in place.

    Args:
        path: path of the manifest.
        stage: name of the subcommand.
        product: kind of the outputs.
        outputs: all files that the stage wrote, below the folder of the manifest.
        timed: outputs that hold times, which differ between equal results.
        made_from, facts, inputs: see :class:`Origin`.
        digests: known SHA-256 of outputs, by absolute path.
        temporary: outputs that are removed once the stage that reads them has ended.
        settings: all that the outputs depend on apart from the inputs.
        seal: digest of the settings and the stage's version.
    """
    files, content = {}, {}
    for file in outputs:
        name = file.relative_to(path.parent).as_posix()
        files[name] = digests.get(file.absolute()) or file_digest(file)
        if file not in timed:
            content[name] = files[name]
    record = {
        "format": MANIFEST_FORMAT,
        "stage": stage,
        "product": product,
        "files": files,
        "content": compute_digest(content or files),
        "made_from": dict(made_from),
        "facts": dict(facts),
        "temporary": [file.relative_to(path.parent).as_posix() for file in temporary],
        "settings": dict(settings or {}),
        "seal": seal,
        "inputs": {
            Path(os.path.relpath(file, path.parent)).as_posix(): content for file, content in (inputs or {}).items()
        },
    }
    record["sha256"] = compute_digest(record)
    write_atomically(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def read_manifest(path: Path) -> Manifest:
    """Read a manifest, and verify its checksum.

    Raises:
        ManifestError: the manifest is damaged, or of another format.
        OSError: the manifest cannot be read.
    """
    try:
        with open_regular(path) as file:
            record = parse_json(file.read())
        received = record.pop("sha256")
        if record["format"] != MANIFEST_FORMAT:
            raise ManifestError(
                f"{path}: expected format {MANIFEST_FORMAT}, received {record['format']}: made by another version of "
                "nfpi; remove its folder, and make it again"
            )
        if compute_digest(record) != received:
            raise ValueError("it does not agree with its checksum")
        return Manifest.model_validate(record)
    except ManifestError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ValidationError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ManifestError(f"{path}: expected a manifest, received a damaged one ({reason})") from None


def find_manifests(folder: Path) -> list[Path]:
    """Return all manifests below a folder, in a fixed order, without those in hidden (unfinished) folders."""
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(parent, file) for file in sorted(files) if file.endswith(SUFFIX)]
    return found


def find_product(file: Path, *, accept_removed: bool = False) -> Product | None:
    """Find the manifest that lists a file, and verify the file; None if no manifest lists it.

    The manifest lies in the file's folder or in its parent folder.

    Args:
        file: path of the file.
        accept_removed: whether the file may be missing if its manifest lists it as temporary.

    Raises:
        ManifestError: the file does not match the manifest, or the manifest is damaged.
        OSError: the file cannot be read.
    """
    file = file.absolute()
    for folder in (file.parent, file.parent.parent):
        name = file.relative_to(folder).as_posix()
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            try:
                manifest = read_manifest(path)
            except FileNotFoundError:  # Snakemake has removed it, to make its product again
                continue
            if name in manifest.files:
                try:
                    with open_regular(file) as opened:
                        manifest.check_file(name, opened, path)
                except FileNotFoundError:
                    if not accept_removed or name not in manifest.temporary:
                        raise ManifestError(f"{file}: expected what {manifest.stage} wrote, received no file") from None
                return Product(path, manifest)
    return None


def find_faults(path: Path) -> tuple[int, list[str]]:
    """Verify all files that a manifest lists; temporary ones may be missing.

    Returns:
        The number of files, including the manifest and removed temporary ones, and one line for each that is missing,
        damaged or unreadable.
    """
    try:
        manifest = read_manifest(path)
    except (ManifestError, OSError) as error:
        return 1, [str(error)]
    faults = []
    for name in manifest.files:
        try:
            with open_below(path.parent, name) as file:
                manifest.check_file(name, file, path)
        except FileNotFoundError:
            if name in manifest.temporary:
                continue
            faults.append(f"{path.parent / name}: expected what {manifest.stage} wrote, received no file")
        except (ManifestError, OSError) as error:
            faults.append(str(error))
    return 1 + len(manifest.files), faults


def remove_temporary(path: Path) -> None:
    """Remove the temporary files that a manifest lists.

    Raises:
        ManifestError: the manifest is damaged, or of another format.
        OSError: a file cannot be removed.
    """
    for name in read_manifest(path).temporary:
        remove_below(path.parent, name)


def trace_inputs(files: Iterable[Path], *, common: Collection[str] | None, accept_removed: bool = False) -> Origin:
    """Verify the files that a stage reads, and return what its product is made from.

    Args:
        files: all inputs of the stage.
        common: products that must be the same for all inputs made from them; None: the inputs belong to different runs,
            so nothing is compared and no facts are returned.
        accept_removed: see :func:`find_product`.

    Raises:
        ManifestError: a file is damaged, or two were made from different products; both are named.
        OSError: a file cannot be read.
    """
    made_from: dict[str, str] = {}
    facts: dict[str, Any] = {}
    found: dict[str, Path] = {}
    contents_of: dict[str, set[str]] = {}
    inputs: dict[Path, str] = {}
    for file in files:
        product = find_product(file, accept_removed=accept_removed)
        if product is None:
            if file.is_file():
                logger.warning("%s: no manifest lists this file: it is not verified", file)
                contents_of.setdefault(OTHER_FILES, set()).add(file_digest(file))
            continue
        manifest = product.manifest
        # metrics of runs are brought together with their times, which `content` leaves out
        inputs[product.path] = compute_digest(manifest.files) if common is None else manifest.content
        contents_of.setdefault(manifest.product, set()).add(manifest.content)
        if common is None:
            continue
        facts |= manifest.facts
        for name, content in {**manifest.made_from, manifest.product: manifest.content}.items():
            if name in common and made_from.get(name, content) != content:
                raise ManifestError(
                    f"{product.path.parent}: expected the same {name} as {found[name]}, received what was made from "
                    "another one"
                )
            if name not in common and name != manifest.product:
                continue
            made_from[name], found[name] = content, product.path.parent
    for name, contents in contents_of.items():
        made_from[name] = digest_together(contents) or ""
    return Origin(made_from, facts, inputs)


def digest_together(digests: Iterable[str]) -> str | None:
    """Return the digest of all files, or products of one kind, with these digests; None if there are none."""
    found = sorted(set(digests))
    return found[0] if len(found) == 1 else compute_digest(found) if found else None


def compute_digest(record: Any) -> str:
    """Compute the SHA-256 of JSON values, independent of the order of keys."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
