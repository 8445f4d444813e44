"""The command that checks a device for the trainings of a preset."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nfpi
from nfpi.config.base import ConfigError
from nfpi.config.resolution import resolve
from nfpi.stages.base import Command

_FILE = "config.yaml"


class CheckDevice(Command):
    """Check this machine for the trainings of a preset.

    Takes minutes. Prints one line per finding: ok; slow or FAILED, with a remedy; or missing, with what is missing.
    Exits with 1 if one FAILED. Data sets that are not prepared are replaced by random images.
    """

    command = "check-device"

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

    def run(self) -> None:
        """Print one line per finding, and write the findings to `output` if it is given.

        Raises:
            ConfigError: the settings are invalid, or their file is not found.
            ValueError: a check failed, or the preset does not train this flow on this data set.
        """
        import torch

        from nfpi.checks.questions import answer_questions
        from nfpi.checks.report import list_failed, print_line, write_report

        began = time.monotonic()
        chosen = {} if self.preset is None else {"preset": self.preset}
        file = self.config_file or _find_config_file()
        resolved = resolve(file, file.parent / "presets", self.config | chosen)
        lines = []
        with _quiet():
            for line in answer_questions(resolved, self.dataset, self.flow):
                print_line(line)
                lines.append(line)
        if self.output is not None:
            versions = {"torch": torch.__version__, "nfpi": nfpi.__version__}
            about = {"preset": resolved.preset, **versions, "seconds": round(time.monotonic() - began, 1)}
            write_report(self.output, lines, about)
        names = list_failed(lines)
        if names:
            raise ValueError(f"check-device: {', '.join(names)} FAILED; see the lines above")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the log lines of training epochs, which are only a few steps here."""
    log = logging.getLogger("nfpi")
    before = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(before)


def _find_config_file() -> Path:
    places = [Path(), Path(nfpi.__file__).parents[2]]  # the latter is the clone of an editable installation
    for folder in places:
        if (folder / _FILE).is_file() and (folder / "presets").is_dir():
            return folder / _FILE
    raise ConfigError(
        f"{_FILE}: expected the root of a clone as working directory, received {Path.cwd()} (or give --config-file)"
    )
