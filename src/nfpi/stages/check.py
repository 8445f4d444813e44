"""Run `nfpi check-device`: check a device for a preset."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

import nfpi
from nfpi.checks.report import list_failed, print_line, write_report
from nfpi.checks.run import run_checks
from nfpi.config import ConfigError, Resolved, resolve
from nfpi.stages.options.check import CheckDevice

_FILE = "config.yaml"


def check_device(command: CheckDevice) -> None:
    """Print one line per finding, and write the findings to `output` if it is given.

    Raises:
        ConfigError: the settings are invalid, or their file is not found.
        ValueError: a check failed, or the preset does not train this flow on this data set.
    """
    began = time.monotonic()
    resolved = _resolve(command)
    lines = []
    with _quiet():
        for line in run_checks(resolved, command.dataset, command.flow):
            print_line(line)
            lines.append(line)
    if command.output is not None:
        seconds = round(time.monotonic() - began, 1)
        about = {"preset": resolved.preset, "torch": torch.__version__, "nfpi": nfpi.__version__, "seconds": seconds}
        write_report(command.output, lines, about)
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


def _resolve(command: CheckDevice) -> Resolved:
    chosen = {} if command.preset is None else {"preset": command.preset}
    file = command.config_file or _find_config_file()
    return resolve(file, file.parent / "presets", command.config | chosen)


def _find_config_file() -> Path:
    places = [Path(), Path(nfpi.__file__).parents[2]]  # the latter is the clone of an editable installation
    for folder in places:
        if (folder / _FILE).is_file() and (folder / "presets").is_dir():
            return folder / _FILE
    raise ConfigError(
        f"{_FILE}: expected the root of a clone as working directory, received {Path.cwd()} (or give --config-file)"
    )
