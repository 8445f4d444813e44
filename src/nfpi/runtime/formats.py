"""What stands in files as JSON: parsed without exceptions for numbers, and checked against a model of it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nfpi.config.base import NonNegativeFloat, NonNegativeInt, PositiveInt, explain

_LARGEST = 2**64


class FormatError(ValueError):
    """A file that is not what it should be; the message is one line and names it."""


class Record(BaseModel):
    """What a JSON object must hold; other keys may stand beside.

    Numbers are numbers, not texts or truth values, and finite.
    """

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


class _Divergence(Record):
    iteration: PositiveInt
    class_index: NonNegativeInt | None
    quantity: str
    weight: Annotated[NonNegativeFloat | None, Field(alias="lambda")]
    context: dict[str, Any] = {}
    message: str = ""


class _Diverged(Record):
    diverged: _Divergence


R = TypeVar("R", bound=Record)


def parse_json(text: str | bytes) -> Any:
    """Parse JSON whose numbers are finite, whose keys are distinct, and whose texts can be written.

    Python's own parser takes NaN, rounds 1e999 to infinity, keeps the last of equal keys, takes halves of surrogate
    pairs, and ends with a RecursionError where brackets are nested deeply.

    Args:
        text: bytes are UTF-8.

    Raises:
        ValueError: it is something else; one line.
    """
    text = text if isinstance(text, str) else text.decode("utf-8")
    try:
        content = json.loads(
            text,
            parse_int=_whole,
            parse_float=_finite,
            parse_constant=_refused,
            object_pairs_hook=_distinct,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if "\\u" in text:
        json.dumps(content, ensure_ascii=False).encode()
    return content


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a file that holds a JSON object.

    Raises:
        FormatError: it holds something else.
        OSError: it is missing, or cannot be read.
    """
    try:
        content = parse_json(path.read_bytes())
    except ValueError as error:
        raise FormatError(f"{path}: expected JSON, received something else ({error})") from None
    if not isinstance(content, dict):
        raise FormatError(f"{path}: expected a JSON object, received {_kind(content)}")
    return content


def check_record(model: type[R], content: object, path: Path | None, what: str) -> R:
    """Check that a file, or a part of one, holds what a model says.

    Args:
        model: what it must hold.
        content: what it holds, as JSON knows it.
        path: of the file; None: it was not read from one.
        what: is expected, in words.

    Raises:
        FormatError: it holds something else.
    """
    source = f"{path}: " if path else ""
    if not isinstance(content, Mapping):
        raise FormatError(f"{source}expected {what}, received {_kind(content)}")
    try:
        return model.model_validate(content)
    except ValidationError as error:
        reason = _shortened(explain(error))
        raise FormatError(f"{source}expected {what}, received something else ({reason})") from None


def check_divergence(content: Mapping[str, Any], path: Path) -> None:
    """Check that a file which says that a fit or a training diverged says when, of which class and what.

    Raises:
        FormatError: it says so, and no more.
    """
    if "diverged" in content:
        check_record(_Diverged, content, path, "a divergence")


def _whole(text: str) -> int:
    number = int(text)
    if abs(number) >= _LARGEST:
        raise ValueError(f"expected whole numbers of at most 64 bits, received {text[:40]}")
    return number


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"expected finite numbers, received {text[:40]}")
    return number


def _refused(text: str) -> float:
    raise ValueError(f"expected finite numbers, received {text}")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"expected distinct keys, received {next(key for key in keys if keys.count(key) > 1)!r} twice")
    return content


def _kind(content: object) -> str:
    return "null" if content is None else type(content).__name__


def _shortened(line: str) -> str:
    return line if len(line) <= 300 else f"{line[:300]}…"
