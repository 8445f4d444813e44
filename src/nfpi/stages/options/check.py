"""The command that checks a device for a preset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nfpi.stages.options.base import Command


class CheckDevice(Command):
    """Check this machine for the trainings of a preset.

    Two minutes. A line a finding: ok; slow, with what to set; missing, with what to give; FAILED, with what to do. The status is 1
    where one FAILED. Random images stand in for data sets that are not prepared.
    """

    command = "check-device"
    work = "nfpi.stages.check:check_device"

    preset: str | None = None
    """name of a preset, or path of one of your own; None: what `config` or config.yaml names"""
    config: dict[str, Any] = {}
    """settings laid over the preset, as with `snakemake --config`"""
    config_file: Path | None = None
    """config.yaml, with the folder of presets beside it; None: in this folder, or the root of the installed clone"""
    dataset: str | None = None
    """only flows of this data set; None: of all"""
    flow: str | None = None
    """only this flow; None: all"""
    output: Path | None = None
    """file that the lines are written to as well, as JSON"""
