"""Lists on the command line that pydantic-settings hands over as text, instead of splitting and unquoting them."""

from __future__ import annotations

import csv
import json
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator
from pydantic_settings import NoDecode

T = TypeVar("T")


def _read_json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def _split_words(value: Any) -> Any:
    return next(csv.reader([value])) if isinstance(value, str) else value


JsonList = Annotated[list[T], NoDecode, BeforeValidator(_read_json)]
"""A list that is given as one JSON text."""
Words = Annotated[list[T], NoDecode, BeforeValidator(_split_words)]
"""A list of words, taken literally, e.g. `3` as a string; a word with a comma is given in double quotes."""
