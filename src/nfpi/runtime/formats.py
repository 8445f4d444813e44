"""Strict parsing of JSON files, and validation of their content."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from nfpi.config.base import explain

_LARGEST = 2**64


class FormatError(ValueError):
    """A file with invalid content; the message is one line and names the file."""


class Record(BaseModel):
    """Model of the required keys of a JSON object; other keys are allowed.

    Numbers must be finite; strings and booleans are not accepted as numbers.
    """

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


R = TypeVar("R", bound=Record)


def parse_json(text: str | bytes) -> Any:
    """Parse JSON with finite numbers, distinct keys, and strings that can be encoded as UTF-8.

    Python's own parser accepts NaN, rounds 1e999 to infinity, keeps the last of equal keys, accepts lone surrogates,
    and raises RecursionError for deeply nested brackets.

    Args:
        text: JSON; bytes are decoded as UTF-8.

    Raises:
        ValueError: the text is not such JSON; the message is one line.
    """
    text = text if isinstance(text, str) else text.decode("utf-8")
    try:
        content = json.loads(
            text,
            parse_int=_parse_whole_number,
            parse_float=_parse_finite_number,
            parse_constant=_parse_finite_number,
            object_pairs_hook=_build_object,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if "\\u" in text:
        json.dumps(content, ensure_ascii=False).encode()
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
        raise FormatError(f"{path}: expected a JSON object, received {_name_type(content)}")
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
    if not isinstance(content, Mapping):
        raise FormatError(f"{source}expected {what}, received {_name_type(content)}")
    try:
        return model.model_validate(content)
    except ValidationError as error:
        reason = _shorten(explain(error))
        raise FormatError(f"{source}expected {what}, received something else ({reason})") from None


def _parse_whole_number(text: str) -> int:
    number = int(text)
    if abs(number) >= _LARGEST:
        raise ValueError(f"expected whole numbers of at most 64 bits, received {text[:40]}")
    return number


def _parse_finite_number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"expected finite numbers, received {text[:40]}")
    return number


def _build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"expected distinct keys, received {next(key for key in keys if keys.count(key) > 1)!r} twice")
    return content


def _name_type(content: object) -> str:
    return "null" if content is None else type(content).__name__


def _shorten(line: str) -> str:
    return line if len(line) <= 300 else f"{line[:300]}…"
