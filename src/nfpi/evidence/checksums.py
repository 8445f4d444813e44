"""SHA256SUMS: the digests of all files of a folder of evidence, in the form that `sha256sum --check` reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from nfpi.runtime.files import file_digest, write_atomically

FILE = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")


class EvidenceError(ValueError):
    """A folder of evidence that is damaged, or does not agree with what is added; the message is one line."""


def write_checksums(folder: Path, digests: Mapping[str, str]) -> None:
    """Write SHA256SUMS.

    Args:
        folder: of evidence.
        digests: SHA-256 of each file, by its path below the folder.
    """
    lines = [f"{digest}  {name}\n" for name, digest in sorted(digests.items())]
    write_atomically(folder / FILE, "".join(lines))


def read_checksums(folder: Path) -> dict[str, str]:
    """Return the digests that SHA256SUMS lists, by the paths of the files.

    Raises:
        EvidenceError: the folder has no such file, or a line is something else.
        OSError: it cannot be read.
    """
    path = folder / FILE
    if not path.is_file():
        raise EvidenceError(f"{folder}: expected evidence, received a folder without {FILE}")
    digests: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        found = _LINE.fullmatch(line)
        if found is None or PurePosixPath(found[2]).is_absolute() or ".." in PurePosixPath(found[2]).parts:
            raise EvidenceError(f"{path}: line {number}: expected a digest and a file, received {line[:80]!r}")
        digests[found[2]] = found[1]
    return digests


def check_files(folder: Path, digests: Mapping[str, str]) -> None:
    """Compare all files with their digests.

    Raises:
        EvidenceError: one is missing or differs; the first one is named.
        OSError: one cannot be read.
    """
    for name, digest in digests.items():
        path = folder / name
        if not path.is_file():
            raise EvidenceError(f"{path}: expected the file that {FILE} lists, received none")
        if file_digest(path) != digest:
            raise EvidenceError(f"{path}: expected what {FILE} lists, received a file that is damaged or was changed")
