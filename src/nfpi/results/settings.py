"""The resolved settings of a preset as a file, which rebuilds its :class:`nfpi.config.Config` without config.yaml."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from pydantic import Field, ValidationError

from nfpi.config.base import explain
from nfpi.config.settings import Config
from nfpi.runtime.files import write_atomically
from nfpi.runtime.formats import FormatError, Record, check_record, read_json_object

FILE = "settings.json"
FORMAT = 1
_OF_MACHINES = {"resources", "cluster", "extensions"}
"""Settings on which no result depends, and the paths of the user's own files."""


class _Stored(Record):
    """Content of the file."""

    format: int
    preset: str = Field(min_length=1)
    extensions: list[str] = []
    settings: dict[str, Any]


@dataclass(frozen=True)
class StoredSettings:
    """The settings of a preset.

    Attributes:
        preset: its name.
        config: all its settings but those of machines (`resources`, `cluster`) and the files of extensions.
        extensions: names of the user's own files, which must be loaded before the settings are read.
    """

    preset: str
    config: Config
    extensions: tuple[str, ...] = ()

    @classmethod
    def of(cls, preset: str, config: Config) -> StoredSettings:
        """Those of a resolved preset."""
        own = tuple(sorted(path.name for path in config.extensions))
        return cls(preset, _config_of(config.model_dump(mode="json", exclude=_OF_MACHINES)), own)

    def to_json(self) -> dict[str, Any]:
        """As the file has it."""
        settings = self.config.model_dump(mode="json", exclude=_OF_MACHINES)
        record = {"format": FORMAT, "preset": self.preset, "extensions": list(self.extensions), "settings": settings}
        return record if self.extensions else {key: value for key, value in record.items() if key != "extensions"}

    def to_text(self) -> str:
        """Content of the file."""
        return json.dumps(self.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_settings(folder: Path, stored: StoredSettings) -> Path:
    """Write the settings into a folder, as `settings.json`."""
    return write_atomically(folder / FILE, stored.to_text())


def read_settings(folder: Path) -> StoredSettings:
    """Read what :func:`write_settings` wrote.

    Raises:
        FormatError: the file is something else, of another format, or holds settings that this version does not have.
        OSError: it cannot be read.
    """
    path = folder / FILE
    content = read_json_object(path)
    found = content.get("format")
    if found != FORMAT:
        raise FormatError(f"{path}: expected settings of format {FORMAT}, received {found!r}: another version of nfpi")
    stored = check_record(_Stored, content, path, "the settings of a preset")
    try:
        config = _config_of(stored.settings)
    except ValidationError as error:
        own = f"; --extensions loads {', '.join(stored.extensions)}" if stored.extensions else ""
        raise FormatError(f"{path}: expected settings of this version, received {explain(error)}{own}") from None
    return StoredSettings(stored.preset, config, tuple(stored.extensions))


def _config_of(settings: Mapping[str, Any]) -> Config:
    return Config.model_validate(_without_folders(settings))


def _without_folders(value: Any) -> Any:
    """The same settings, in which names of files and folders stand for absolute paths, which other machines lack."""
    if isinstance(value, Mapping):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_folders(item) for item in value]
    return PurePath(value).name if isinstance(value, str) and value.startswith("/") else value
