"""Downloads by torchvision."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from nfpi.data.errors import DataError
from nfpi.runtime.locks import locked_in_turn


def download(kind: type[Any], folder: Path) -> None:
    """Fetch a torchvision data set that is not in the folder yet, while other processes that need it wait.

    Raises:
        DataError: it cannot be had.
    """
    is_fixed = folder.is_dir() and not os.access(folder, os.W_OK)  # nobody downloads there
    alone = nullcontext() if is_fixed else locked_in_turn(folder / f".{kind.__name__}.lock", f"fetch {kind.__name__}")
    try:
        with alone:
            kind(folder, download=True)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        url, needed = _wanted(kind, folder)
        raise DataError(
            f"{folder}: expected to download {kind.__name__} from {url}, received an error ({reason}): fetch it where "
            f"there is internet, and name the folder that has {needed} by `folder:` of the data set"
        ) from None


def _wanted(kind: type[Any], folder: Path) -> tuple[str, str]:
    """Address of the file that could not be fetched, and what the folder of a data set holds that needs no download."""
    if hasattr(kind, "url"):  # CIFAR's archive
        return kind.url, f"{kind.base_folder} (unpacked)"
    raw = folder / kind.__name__ / "raw"
    names = [name for name, _ in kind.resources]  # MNIST's files
    missing = next((name for name in names if not (raw / name).is_file()), names[0])
    return f"{kind.mirrors[0]}{missing}", f"its {len(names)} files ({missing} and so on)"
