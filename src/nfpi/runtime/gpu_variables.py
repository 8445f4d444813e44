"""Environment variables that decide whether a GPU is used; importing them loads no torch."""

from __future__ import annotations

from typing import Final

CHOICE: Final = "NFPI_DEVICE"
"""`auto` (default), `cpu` (even if a GPU is allocated), `cuda` (a GPU, or an error)."""
VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
HIDING = frozenset({"", "-1", "NoDevFiles", "none", "void"})
"""Values of :data:`VISIBLE` that hide all GPUs; NoDevFiles is SLURM's."""
