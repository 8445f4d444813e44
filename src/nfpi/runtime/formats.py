"""Strict parsing of JSON files, and validation of their content."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from nfpi.config.base import explain


class FormatError(ValueError):
    """A file with invalid content; the message is one line and names the file."""


class Record(BaseModel):
    """Model of the required keys of a JSON object; other keys are allowed.

    Numbers must be finite; strings and booleans are not accepted as numbers.
    """

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


R = TypeVar("R", bound=BaseModel)


def parse_json(text: str | bytes) -> Any:
    """Parse JSON with finite numbers, and strings that can be encoded as UTF-8; Python's own parser accepts others.

    Raises:
        ValueError: the text is not such JSON; the message is one line.
    """
    content = from_json(text, allow_inf_nan=False)
    json.dumps(content, allow_nan=False)  # refuses infinity, as which 1e999 is read
    return content


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a file that holds a JSON object.

    Raises:
        FormatError: the content is not a JSON object.
        OSError: the file is missing or unreadable.
    """
    try:
        content = parse_json(path.read_bytes())
    except ValueError as error:
        raise FormatError(f"{path}: expected JSON, received something else ({error})") from None
    if not isinstance(content, dict):
        raise FormatError(f"{path}: expected a JSON object, received {type(content).__name__}")
    return content


def check_record(model: type[R], content: object, path: Path | None, what: str) -> R:
    """Validate the content of a file, or a part of it.

    Args:
        model: expected content.
        content: parsed JSON.
        path: path of the file; None: the content is not from a file.
        what: name of the expected content in messages.

    Raises:
        FormatError: the content does not match the model.
    """
    source = f"{path}: " if path else ""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise FormatError(f"{source}expected {what}, received something else ({explain(error)[:300]})") from None
