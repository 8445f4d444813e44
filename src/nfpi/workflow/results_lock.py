"""A lock on the results of a preset, so that two Snakemake processes never write them at once."""

from __future__ import annotations

import atexit
from pathlib import Path

from nfpi.runtime.locks import acquire

LOCK = ".snakemake.lock"


def lock_results(root: Path) -> None:
    """Lock results/{preset} until this process ends, even if it is killed.

    Snakemake's own lock is not enough: it is in the working directory, so a second clone can write to the same results,
    and it remains if Snakemake is killed.

    Raises:
        LockedError: another Snakemake holds the lock.
    """
    root.mkdir(parents=True, exist_ok=True)
    lock = acquire(root.absolute() / LOCK, "make these results")  # the working directory may change before the release
    atexit.register(lock.release)
