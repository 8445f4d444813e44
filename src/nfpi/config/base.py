"""Base class and field types of all settings."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""Limited to 63 bits, because tables store it as a signed 64-bit integer."""
Fraction = Annotated[float, Field(ge=0, lt=1)]
"""Less than 1."""
Share = Annotated[float, Field(ge=0, le=1)]
"""At most 1."""
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$"
NAME_RULE = "a name of letters, digits and . _ + - that begins with a letter or digit"
Name = Annotated[str, Field(pattern=NAME)]

Split = Literal["train", "validation", "test"]
Start = Literal["data", "isotropic", "identity", "random"]
"""Kind of initial Gaussians."""
Augmentation = Literal["none", "standard", "nfa", "standard+nfa", "noise", "standard+noise"]
"""Augmentation of the real images that a classifier is trained on: standard augmentations, latent augmentation (nfa,
noise), or both."""


class _Execution:
    """Type of :data:`EXECUTION`."""


EXECUTION = _Execution()
"""Annotation of a setting that affects how a job runs and is monitored, or where its files are, but not its result."""


class ConfigError(ValueError):
    """A setting that is missing, unknown or out of range; its message is one line and names the key."""


def _check_unique(values: list[Any]) -> list[Any]:
    """Raise ValueError for a value that is given twice."""
    repeated = next((value for value in values if values.count(value) > 1), None)
    if repeated is not None:
        raise ValueError(f"expected each value once, received {repeated} {values.count(repeated)} times")
    return values


UNIQUE = AfterValidator(_check_unique)
"""Annotation of a list whose values must differ."""


class Settings(BaseModel):
    """Base class of settings: frozen, without unknown keys; files and JSON use the alias of a field if it has one."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, serialize_by_alias=True)

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, data: Any) -> Any:
        """Raise an error that names an unknown key and the known key nearest to it."""
        if isinstance(data, Mapping):
            known = [field.alias or name for name, field in cls.model_fields.items()]
            for key in data:
                if key not in known:
                    hint = suggest(str(key), known)
                    raise PydanticCustomError("unknown_key", "unknown key '{key}'{hint}", {"key": key, "hint": hint})
        return data


def select_result_settings(settings: BaseModel) -> dict[str, Any]:
    """Return the settings that a result depends on, all but those annotated with :data:`EXECUTION`, as in JSON."""
    dumped = settings.model_dump(mode="json")
    selected: dict[str, Any] = {}
    for name, field in type(settings).model_fields.items():
        key = field.alias or name
        if key in dumped and EXECUTION not in field.metadata:  # others are excluded from files
            value = getattr(settings, name)
            selected[key] = select_result_settings(value) if isinstance(value, BaseModel) else dumped[key]
    return selected


def subtract_settings(settings: Mapping[str, Any], selected: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings, as in JSON, that are not among the selected ones."""
    rest: dict[str, Any] = {}
    for key, value in settings.items():
        if key not in selected:
            rest[key] = value
        elif isinstance(value, Mapping) and (inner := subtract_settings(value, selected[key])):
            rest[key] = inner
    return rest


def list_execution_settings(*classes: type[BaseModel]) -> set[str]:
    """Return the names of the settings of these classes that are annotated with :data:`EXECUTION`."""
    return {name for cls in classes for name, field in cls.model_fields.items() if EXECUTION in field.metadata}


def _expand_variables(text: Any) -> Any:
    """Expand environment variables; raises ValueError if a variable is unset or empty."""
    if not isinstance(text, str):
        return text
    if not all(os.environ.get(name) for name in re.findall(r"\$\{?(\w+)", text)):
        raise ValueError(f"expected environment variables that are set, received {text}")
    return os.path.expandvars(text)


def expand_home(path: str) -> Path:
    """Expand `~` and `~user`; raises ConfigError if the home folder is unknown."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ConfigError(f"expected a path in a known home folder, received {path}") from None


class TextOfFile(str):
    """A string of a settings file that remembers the folder of this file, to which paths are relative.

    Which strings are paths is decided by the settings class that reads them.
    """

    folder: Path

    @classmethod
    def mark(cls, content: Any, folder: Path) -> Any:
        """Return the settings of a file in `folder`, with all strings as :class:`TextOfFile`."""

        def mark(value: Any) -> Any:
            if not isinstance(value, str):
                return value
            marked = cls(value)
            marked.folder = folder
            return marked

        return map_leaves(content, mark)


def expand_path(path: Any) -> Any:
    """Expand environment variables and `~` of a path on this machine; a path in a file is relative to its folder."""
    expanded = _expand_variables(path)
    if not isinstance(expanded, str):
        return expanded
    local = expand_home(expanded)
    return path.folder / local if isinstance(path, TextOfFile) else local


LocalPath = Annotated[Path, BeforeValidator(expand_path)]
"""A path on this machine; environment variables such as `$SCRATCH` are expanded. In a preset
outside of `presets/`, a relative path is relative to the folder of the preset."""
ExpandedText = Annotated[str, BeforeValidator(_expand_variables)]
"""A string whose environment variables are expanded."""


def suggest(name: str, known: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)`, or all known names if none is similar; an empty string if no names are known."""
    known = list(known)
    longer = [other for other in known if other.startswith(f"{name}_")]  # `fid_inception` for `fid`
    if nearest := longer[:3] or difflib.get_close_matches(name, known, n=1, cutoff=0.52):
        return f" (did you mean {' or '.join(map(repr, nearest))}?)"
    return f" (known: {', '.join(known)})" if known else ""


def explain(error: ValueError) -> str:
    """Describe one fault of settings in one line, which says key, what was expected, and what was received."""
    return find_fault(error)[1] if isinstance(error, ValidationError) else str(error)


def find_fault(error: ValidationError) -> tuple[list[str], str]:
    """Return the names that lead to the setting of one fault, and the fault in one line.

    An unknown key takes precedence, since a misspelt key also makes the correct one missing.
    """
    faults = error.errors(include_url=False)
    fault = next((fault for fault in faults if fault["type"] == "unknown_key"), faults[0])
    path = [str(part) for part in fault["loc"] if part not in ("", "[key]")]
    if fault["type"] == "unknown_key":
        path.append(str(fault["ctx"]["key"]))
        return path, f"unknown key '{'.'.join(path)}'{fault['ctx']['hint']}"
    received = "" if fault["type"] in ("value_error", "missing") else f", received {fault['input']!r}"
    message = f"{fault['msg'].removeprefix('Value error, ')}{received}"
    return path, f"{'.'.join(path)}: {message}" if path else message


def strip_folders(value: Any) -> Any:
    """Replace absolute paths by the names of their files or folders, which are the same on every machine."""
    return map_leaves(value, lambda leaf: PurePath(leaf).name if isinstance(leaf, str) and leaf[:1] == "/" else leaf)


def map_leaves(value: Any, change: Callable[[Any], Any]) -> Any:
    """Change every value of nested mappings and lists that is neither."""
    if isinstance(value, Mapping):
        return {key: map_leaves(item, change) for key, item in value.items()}
    return [map_leaves(item, change) for item in value] if isinstance(value, list) else change(value)
