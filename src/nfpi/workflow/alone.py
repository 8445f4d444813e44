"""One Snakemake at a time works on the results of a preset."""

from __future__ import annotations

import atexit
from pathlib import Path

from nfpi.runtime.locks import acquire

LOCK = ".snakemake.lock"


def hold_results(root: Path) -> None:
    """Lock results/{preset} until this process ends, however it ends.

    Snakemake's own lock is that of the folder it is called in: it knows nothing of a second clone that writes to the
    same results, and it stays when Snakemake is killed.

    Raises:
        LockedError: another Snakemake holds the lock.
    """
    root.mkdir(parents=True, exist_ok=True)
    lock = acquire(root.absolute() / LOCK, "make these results")  # at the end the working folder may be another one
    atexit.register(lock.release)
