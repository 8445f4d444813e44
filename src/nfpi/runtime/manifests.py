"""Manifests: records of what a stage wrote and what it read, written after all its outputs.

A manifest lies in the output folder of its stage. It lists the SHA-256 of every output and, of every input, its key and
the digest of its content, so that later stages reject outputs that are damaged, incomplete, or made from other inputs.
It also holds its own checksum. Files that no manifest lists, such as a model saved in Python, are not verified.

Its `key` says what the outputs are: it is computed from the settings and from the keys of the inputs
(:meth:`nfpi.stages.base.Stage.compute_key`). Products of one key may differ in their bytes, e.g. on a GPU.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from nfpi.runtime.files import file_digest, locate_below, write_atomically
from nfpi.runtime.formats import parse_json

logger = logging.getLogger(__name__)

MANIFEST_FORMAT = 2
SUFFIX = ".manifest.json"


class ManifestError(ValueError):
    """A file that is damaged, not a complete output, or made from something else; the message is one line."""


class Input(BaseModel):
    """What a stage read.

    Attributes:
        name: name of the input.
        product: kind of the product that it is or belongs to; empty for a file that no manifest lists.
        path: path of the product's manifest from the folder of the reading stage's manifest; empty as above.
        key: key of the product; digest of a file that no manifest lists.
        content: digest of the product's content, or of that file.
        apart: whether it is of another run or data set than the other inputs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    product: str = ""
    path: str = ""
    key: str
    content: str
    apart: bool = False


class Manifest(BaseModel):
    """Record of the outputs of a stage.

    Attributes:
        format: format version of this file and of the files that it lists.
        stage: name of the subcommand.
        product: kind of the outputs, in a word or two: `data`, `initial state`, `prior`, `model`, ...
        key: digest of all that the outputs depend on.
        files: SHA-256 of each output, by its path below the folder of the manifest.
        content: digest of the reproducible outputs, i.e. those without times.
        temporary: the `files` that are removed once the stage that reads them has ended.
        settings: all that the outputs depend on apart from the inputs (`nfpi.stages.base.Stage.declaration`).
        inputs: what the stage read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: int
    stage: str
    product: str
    key: str
    files: dict[str, str]
    content: str
    temporary: list[str] = []
    settings: dict[str, Any] = {}
    inputs: list[Input] = []

    @model_validator(mode="after")
    def _check_temporary(self) -> Self:
        unlisted = [name for name in self.temporary if name not in self.files]
        if unlisted:  # they are removed
            raise ValueError(f"temporary: expected some of files, received {unlisted[0]}")
        return self

    def list_keys(self, name: str) -> list[str]:
        """Return the keys of the inputs of this name."""
        return [found.key for found in self.inputs if found.name == name]

    def check_file(self, name: str, file: Path, path: Path) -> None:
        """Compare a file with its digest.

        Args:
            name: name of the file in `files`.
            file: path of the file.
            path: path of the manifest.

        Raises:
            ManifestError: the file has another digest.
            OSError: the file cannot be read.
        """
        if file_digest(file) != self.files[name]:
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


def write_manifest(
    path: Path,
    stage: str,
    product: str,
    outputs: Iterable[Path],
    *,
    key: str,
    timed: Collection[Path] = (),
    temporary: Collection[Path] = (),
    settings: Mapping[str, Any] | None = None,
    inputs: Iterable[Input] = (),
) -> None:
    """Write the manifest of a stage whose outputs are all in place.

    Args:
        path: path of the manifest.
        stage: name of the subcommand.
        product: kind of the outputs.
        outputs: all files that the stage wrote, below the folder of the manifest.
        key: digest of all that the outputs depend on.
        timed: outputs that hold times, which differ between equal results.
        temporary: outputs that are removed once the stage that reads them has ended.
        settings: all that the outputs depend on apart from the inputs.
        inputs: what the stage read.
    """
    files, content = {}, {}
    for file in outputs:
        name = file.relative_to(path.parent).as_posix()
        files[name] = file_digest(file)
        if file not in timed:
            content[name] = files[name]
    record = {
        "format": MANIFEST_FORMAT,
        "stage": stage,
        "product": product,
        "key": key,
        "files": files,
        "content": compute_digest(content or files),
        "temporary": [file.relative_to(path.parent).as_posix() for file in temporary],
        "settings": dict(settings or {}),
        "inputs": [found.model_dump() for found in inputs],
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
        record = parse_json(path.read_bytes())
        received = record.pop("sha256")
        if record["format"] != MANIFEST_FORMAT:
            raise ManifestError(
                f"{path}: expected format {MANIFEST_FORMAT}, received {record['format']}: made by another version of "
                "nfpi; `snakemake` with its target makes it again"
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


def find_product(file: Path) -> Product | None:
    """Find the manifest that lists a file, and verify the file; None if no manifest lists it.

    The manifest lies in the file's folder or in its parent folder.

    Args:
        file: path of the file.

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
                    manifest.check_file(name, file, path)
                except FileNotFoundError:
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
            manifest.check_file(name, locate_below(path.parent, name), path)
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
        locate_below(path.parent, name).unlink(missing_ok=True)


def read_inputs(
    files: Mapping[str, Sequence[Path]],
    folder: Path,
    *,
    with_times: bool = False,
    apart: Collection[str] = (),
    warn: bool = False,
) -> list[Input]:
    """Verify the files that a stage reads, and return each product among them once for each name.

    Args:
        files: all inputs of the stage, by name.
        folder: folder of the stage's manifest.
        with_times: whether `content` includes files with times, which a stage copies that collects metrics.
        apart: names of inputs of another run or data set than the others.
        warn: whether to log a warning for each file that no manifest lists.

    Raises:
        ManifestError: a file is damaged.
        OSError: a file cannot be read.
    """
    found: list[Input] = []
    for name, paths in files.items():
        for file in paths:
            product = find_product(file)
            if product is not None:
                path, manifest = Path(os.path.relpath(product.path, folder)).as_posix(), product.manifest
                content = compute_digest(manifest.files) if with_times else manifest.content
                item = Input(name=name, product=manifest.product, path=path, key=manifest.key, content=content)
            elif file.is_file():
                if warn:
                    logger.warning("%s: no manifest lists this file: it is not verified", file)
                digest = file_digest(file)
                item = Input(name=name, key=digest, content=digest)
            else:  # the stage says that it is missing
                continue
            if name in apart:
                item = item.model_copy(update={"apart": True})
            if item not in found:
                found.append(item)
    return found


def compute_digest(record: Any) -> str:
    """Compute the SHA-256 of JSON values, independent of the order of keys."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
