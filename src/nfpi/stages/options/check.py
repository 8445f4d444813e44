"""The command that checks a device for a preset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nfpi.stages.options.base import Command


class CheckDevice(Command):
    """Check this machine for the trainings of a preset.

    Takes minutes. Prints one line per finding: ok; slow or FAILED, with a remedy; or missing, with what is missing.
    Exits with 1 if one FAILED. Data sets that are not prepared are replaced by random images.
    """

    command = "check-device"
    work = "nfpi.stages.check:check_device"

    preset: str | None = None
    """name of a preset, or path of your own; None: the preset that `config` or config.yaml names"""
    config: dict[str, Any] = {}
    """settings that override the preset, as with `snakemake --config`"""
    config_file: Path | None = None
    """config.yaml, with the folder of presets beside it; None: that of this folder, or of the installed clone"""
    dataset: str | None = None
    """check only flows of this data set; None: of all data sets"""
    flow: str | None = None
    """check only this flow; None: all flows"""
    output: Path | None = None
    """JSON file for the findings"""
