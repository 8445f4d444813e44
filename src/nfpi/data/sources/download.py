"""Downloads by torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nfpi.data.errors import DataError


def download(kind: type[Any], folder: Path) -> None:
    """Fetch a torchvision data set that is not in the folder yet.

    Raises:
        DataError: it cannot be had.
    """
    try:
        kind(folder, download=True)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{folder}: expected to download {kind.__name__}, received an error ({reason})") from None
