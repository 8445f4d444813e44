"""Types that settings are made of."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""Tables hold seeds as 64-bit integers with a sign."""
Fraction = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$"
Name = Annotated[str, Field(pattern=NAME)]

Split = Literal["train", "validation", "test"]
Start = Literal["data", "isotropic", "identity", "random"]
Augmentation = Literal["none", "standard", "nfa", "standard+nfa", "noise", "standard+noise"]


class ConfigError(ValueError):
    """A setting that is missing, unknown or out of range; its message is one line and names the key."""


def added_setting(default: Any) -> Any:
    """Declare a setting that earlier results were made without: it is written only where it is not the default.

    Snakemake and the checkpoints compare settings as they are written, so those results stay up to date.
    """
    return Field(default=default, exclude_if=lambda value: value == default)


class _Nullable:
    """Annotate a mapping of blocks by name: null leaves out a block of the preset that is extended."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._leave_out_nulls, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        described = handler(schema)
        by_pattern = described["patternProperties"]
        return described | {
            "patternProperties": {name: {"anyOf": [block, {"type": "null"}]} for name, block in by_pattern.items()}
        }

    @staticmethod
    def _leave_out_nulls(blocks: Any) -> Any:
        if not isinstance(blocks, Mapping):
            return blocks
        return {name: block for name, block in blocks.items() if block is not None}


NULL_LEAVES_OUT = _Nullable()


class Settings(BaseModel):
    """A group of settings: frozen, unknown keys refused; files and JSON have a setting's alias where it has one."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, serialize_by_alias=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        """An unknown key is named together with the nearest known one; it may be why another one is missing."""
        if isinstance(data, Mapping):
            known = [field.alias or name for name, field in cls.model_fields.items()]
            for key in data:
                if key not in known:
                    hint = suggest(str(key), known)
                    raise PydanticCustomError("unknown_key", "unknown key '{key}'{hint}", {"key": key, "hint": hint})
        return data


def _with_variables(text: Any) -> Any:
    """Environment variables stand for what they hold; one that is not set, or empty, is named."""
    if not isinstance(text, str):
        return text
    for name in re.findall(r"\$(?:\{(\w+)\}|(\w+))", text):
        if os.environ.get(variable := "".join(name)) == "":
            raise ValueError(f"environment variable ${variable} is empty")
    expanded = os.path.expandvars(text)
    missing = re.search(r"\$\{?\w+\}?", expanded)
    if missing:
        raise ValueError(f"environment variable {missing[0]} is not set")
    return expanded


class TextOfFile(str):
    """A text that stands in a file of settings; a path is relative to the folder of that file.

    Which texts are paths is known where a class of settings reads them; any other stays a text.
    """

    folder: Path

    @classmethod
    def mark(cls, content: Any, folder: Path) -> Any:
        """The same settings, with the folder of their file noted in every text."""
        if isinstance(content, dict):
            return {key: cls.mark(value, folder) for key, value in content.items()}
        if isinstance(content, list):
            return [cls.mark(item, folder) for item in content]
        if not isinstance(content, str):
            return content
        marked = cls(content)
        marked.folder = folder
        return marked


def _expand(path: Any) -> Any:
    """Environment variables and `~` stand for folders."""
    expanded = _with_variables(path)
    if not isinstance(expanded, str):
        return expanded
    found = Path(expanded).expanduser()
    return path.folder / found if isinstance(path, TextOfFile) else found


LocalPath = Annotated[Path, BeforeValidator(_expand)]
"""A path of this machine; `$SCRATCH` and the like may stand in it. One in a preset of the user's own is relative to the
file of that preset."""
ExpandedText = Annotated[str, BeforeValidator(_with_variables)]
"""A text in which environment variables may stand."""


def suggest(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)`, or the names there are, or nothing."""
    known = list(known)
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if nearest:
        return f" (did you mean '{nearest[0]}'?)"
    return f" (known: {', '.join(known)})" if known else ""


def explain(error: ValidationError) -> str:
    """One fault of a validation error in one line: key, what was expected, what was received.

    An unknown key comes first: it may be why another one is missing.
    """
    faults = error.errors(include_url=False)
    fault = next((fault for fault in faults if fault["type"] == "unknown_key"), faults[0])
    *parents, last = map(str, fault["loc"]) if fault["loc"] else ("",)
    context = fault.get("ctx", {})
    if fault["type"] == "unknown_key":
        key = ".".join((*parents, last, str(context["key"]))).lstrip(".")
        return f"unknown key '{key}'{context['hint']}"
    if last == "[key]":
        *parents, key = parents
        known = re.findall(r"'([^']+)'", context.get("expected", ""))
        return f"unknown key '{'.'.join((*parents, key))}'{suggest(key, known)}"
    where = ".".join(filter(None, (*parents, last)))
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "unknown_variant":
        return f"{where}.{message}" if where else message
    received = "" if fault["type"] in ("value_error", "missing") else f", received {fault['input']!r}"
    return f"{where}: {message}{received}" if where else f"{message}{received}"
