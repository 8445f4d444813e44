"""Records of a call of the workflow: the settings of its preset, and the runs that it requested."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from nfpi.config.base import explain, strip_folders
from nfpi.config.settings import Config
from nfpi.runs import Run, parse_run_folder
from nfpi.runtime.files import write_atomically
from nfpi.runtime.formats import FormatError, Record, check_record, read_json_object

FILE = "settings.json"
"""File of the settings, from which :class:`nfpi.config.Config` is restored."""
FORMAT = 1
"""Version of its format."""
KEYS_FILE = "keys.json"
"""File of the keys that the products of the call should have, for the processes of its jobs."""
PLANNED_FILE = "planned.json"
"""File of the requested runs, which include those not started yet."""
_MACHINE_SETTINGS = {"resources", "cluster", "extensions"}
"""Settings that do not affect results, or that contain paths of this machine."""


class _Stored(Record):
    """Contents of the file."""

    format: Literal[1]
    preset: str = Field(min_length=1)
    extensions: list[str] = []
    settings: dict[str, Any]


@dataclass(frozen=True)
class StoredSettings:
    """The settings of a preset.

    Attributes:
        preset: name of the preset.
        config: its settings, without `resources`, `cluster` and `extensions`.
        extensions: file names of extensions, which must be loaded before the settings can be read.
    """

    preset: str
    config: Config
    extensions: tuple[str, ...] = ()

    @classmethod
    def of(cls, preset: str, config: Config) -> StoredSettings:
        """Create the stored form of the settings of a preset."""
        extensions = tuple(sorted(path.name for path in config.extensions))
        return cls(preset, _restore_config(config.model_dump(mode="json", exclude=_MACHINE_SETTINGS)), extensions)

    def to_json(self) -> dict[str, Any]:
        """Return the contents of the file as JSON values."""
        extensions = {"extensions": list(self.extensions)} if self.extensions else {}
        settings = self.config.model_dump(mode="json", exclude=_MACHINE_SETTINGS)
        return {"format": FORMAT, "preset": self.preset, **extensions, "settings": settings}

    def to_text(self) -> str:
        """Return the contents of the file as text."""
        return json.dumps(self.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_settings(folder: Path, stored: StoredSettings) -> Path:
    """Write the settings to `settings.json` in a folder."""
    return write_atomically(folder / FILE, stored.to_text())


def read_settings(folder: Path) -> StoredSettings:
    """Read the file of :func:`write_settings`.

    Raises:
        FormatError: the file has another format, or settings unknown to this version.
        OSError: the file cannot be read.
    """
    path = folder / FILE
    stored = check_record(_Stored, read_json_object(path), path, f"the settings of a preset in format {FORMAT}")
    try:
        config = _restore_config(stored.settings)
    except ValidationError as error:
        options = " ".join(f"--extensions {file}" for file in stored.extensions)
        hint = f"; load its extensions: nfpi {options} …" if stored.extensions else ""
        raise FormatError(f"{path}: expected settings of this version, received {explain(error)}{hint}") from None
    return StoredSettings(stored.preset, config, tuple(stored.extensions))


def write_keys(root: Path, keys: Mapping[str, str]) -> None:
    """Write the keys of products, by the paths of their manifests below results/{preset}."""
    write_atomically(root / KEYS_FILE, json.dumps(dict(keys), indent=0, ensure_ascii=False) + "\n")


def read_keys(root: Path) -> dict[str, str]:
    """Read the result of :func:`write_keys`; empty if there is none.

    Raises:
        FormatError: the file is damaged.
        OSError: the file cannot be read.
    """
    path = root / KEYS_FILE
    return dict(read_json_object(path)) if path.exists() else {}


def write_planned(root: Path, runs: Iterable[Run]) -> None:
    """Write the folders of the requested runs to results/{preset}/planned.json."""
    folders = list(dict.fromkeys(run.folder for run in runs))
    write_atomically(root / PLANNED_FILE, json.dumps({"runs": folders}, indent=2) + "\n")


def read_planned(root: Path) -> list[Run]:
    """Read the requested runs; empty if the file is missing or damaged."""
    try:
        folders = read_json_object(root / PLANNED_FILE)["runs"]
        runs = [parse_run_folder(folder) for folder in folders]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [run for run in runs if run is not None]


def _restore_config(settings: Mapping[str, Any]) -> Config:
    return Config.model_validate(strip_folders(settings))
