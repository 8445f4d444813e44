"""The command that writes a preset for the user's images."""

from __future__ import annotations

from pathlib import Path

from pydantic_settings import CliPositionalArg

from nfpi.stages.options.base import Command


class WritePreset(Command):
    """Write a preset for a folder of images of your own.

    Chooses settings by the number, size and classes of the images. Prints the command that makes the table.
    """

    command = "new"
    work = "nfpi.stages.new:write_preset"

    folder: CliPositionalArg[Path]
    """train/ and test/ (or val/) with one folder per class, class folders alone, or a zip or tar archive of them"""
    output: Path | None = None
    """file of the preset, which must not exist; None: NAME.yaml in presets/ or, without such a folder, in the
    working folder; NAME is made from the name of the folder of images"""
    download_folder: Path = Path("results/downloads")
    """folder where an archive is unpacked"""
