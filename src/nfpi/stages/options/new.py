"""The command that writes a preset for images of the user's own."""

from __future__ import annotations

from pathlib import Path

from pydantic_settings import CliPositionalArg

from nfpi.stages.options.base import Command


class WritePreset(Command):
    """Write a preset for a folder of images of your own.

    It suits their number, their size and their classes. The command that makes its table is printed.
    """

    command = "new"
    work = "nfpi.stages.new:write_preset"

    folder: CliPositionalArg[Path]
    """train/ and test/ (or val/) with a folder for each class, class folders alone, or a zip or tar archive of them"""
    output: Path | None = None
    """file of the preset, which must not be there yet; none: NAME.yaml in presets/, NAME that of the folder"""
    download_folder: Path = Path("results/downloads")
    """where an archive is unpacked"""
