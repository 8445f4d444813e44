"""Downloads of data sets by torchvision."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from torchvision.datasets.utils import check_integrity

from nfpi.data.errors import DataError
from nfpi.runtime.locks import locked_in_turn


def download(kind: type[Any], folder: Path) -> None:
    """Download a torchvision data set, unless it is in the folder already; other processes that need it wait.

    Raises:
        DataError: the download failed.
    """
    is_read_only = folder.is_dir() and not os.access(folder, os.W_OK)  # no lock needed
    name = kind.__name__
    lock = nullcontext() if is_read_only else locked_in_turn(folder / f".{name}.lock", f"fetch {name}")
    try:
        with lock:
            kind(folder, download=True)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        url, needed = _describe_missing(kind, folder)
        raise DataError(
            f"{folder}: expected to download {kind.__name__} from {url}, received an error ({reason}): fetch it where "
            f"there is internet, and name the folder that has {needed} by `folder:` of the data set"
        ) from None


def _describe_missing(kind: type[Any], folder: Path) -> tuple[str, str]:
    """Return the URL of the missing file, and describe the files of a complete folder."""
    if hasattr(kind, "url"):  # CIFAR's archive
        return kind.url, f"{kind.base_folder} (unpacked)"
    raw = folder / kind.__name__ / "raw"
    names = [name for name, _ in kind.resources]  # MNIST's files
    # a connection that broke off leaves a part of a file
    missing = next((name for name, md5 in kind.resources if not check_integrity(raw / name, md5)), names[0])
    return f"{kind.mirrors[0]}{missing}", f"its {len(names)} files ({missing} and so on)"
