"""Choice of the CUDA build of torch when conda creates the environment of `environment.yml`."""

from __future__ import annotations

import os
from pathlib import Path

OVERRIDE_VARIABLE = "CONDA_OVERRIDE_CUDA"
"""Environment variable with the CUDA version that conda uses instead of asking the driver."""

CUDA_VERSION = "12.9"
"""Last version of CUDA before 13, which drops V100 and needs a newer driver."""

_DRIVER = Path("/proc/driver/nvidia")


def request_cuda_build() -> None:
    """Make conda choose a CUDA build of torch on a login node without a driver; a version set by the user is kept."""
    if not _DRIVER.exists():
        os.environ.setdefault(OVERRIDE_VARIABLE, CUDA_VERSION)
