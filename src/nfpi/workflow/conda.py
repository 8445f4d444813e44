"""What conda is told when it makes the environment of `environment.yml`."""

from __future__ import annotations

import os
from pathlib import Path

OVERRIDE = "CONDA_OVERRIDE_CUDA"
"""Variable that conda takes the driver's version of CUDA from, in the place of the driver."""

CUDA = "12.9"
"""Last version of CUDA before 13, which drops V100 and needs a newer driver."""

_DRIVER = Path("/proc/driver/nvidia")


def ask_for_cuda() -> None:
    """Let conda take a CUDA build of torch on a login node, which has no driver; a choice of the user's stays."""
    if not _DRIVER.exists():
        os.environ.setdefault(OVERRIDE, CUDA)
