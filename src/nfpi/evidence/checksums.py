"""Checksums of a folder of evidence: SHA256SUMS, in the format of `sha256sum`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from nfpi.runtime.files import open_below, write_atomically

FILE = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")


class EvidenceError(ValueError):
    """Evidence, runs to be added to it, or blocks of Markdown files to be filled from it are missing or invalid."""


def write_checksums(folder: Path, digests: Mapping[str, str]) -> None:
    """Write SHA256SUMS.

    Args:
        folder: folder of evidence.
        digests: SHA-256 of each file, by its relative path.
    """
    lines = [f"{digest}  {name}\n" for name, digest in sorted(digests.items())]
    write_atomically(folder / FILE, "".join(lines))


def read_checksums(folder: Path) -> dict[str, str]:
    """Read SHA256SUMS: digests by the relative paths of the files.

    Raises:
        EvidenceError: the file is missing, or has an invalid line.
        OSError: it cannot be read.
    """
    path = folder / FILE
    if not path.is_file():
        raise EvidenceError(f"{folder}: expected evidence, received a folder without {FILE}")
    digests: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise EvidenceError(f"{path}: line {number}: expected a digest and a file, received {line[:80]!r}")
        digests[match[2]] = match[1]
    return digests


def check_files(folder: Path, digests: Mapping[str, str]) -> None:
    """Verify all files by their digests.

    Raises:
        EvidenceError: a file is missing or differs.
        OSError: a file cannot be read, or its name leads out of the folder or through a link.
    """
    for name, digest in digests.items():
        try:
            with open_below(folder, name) as file:
                received = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            raise EvidenceError(f"{folder / name}: expected the file that {FILE} lists, received none") from None
        if received != digest:
            raise EvidenceError(f"{folder / name}: expected the checksum in {FILE}, received a damaged or changed file")
