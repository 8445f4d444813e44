"""One-line messages for wrong options that Snakemake rejects with a traceback, before it reads the Snakefile."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from typing import Any

import yaml

_CONFIG_FILE = re.compile(
    r"\bin _load_configfile\n.*\n\w+Error: \[Errno \d+\] (?P<fault>[^\n]+): '(?P<name>.*)'\s*$", re.S
)
_CONFIG = re.compile(r"^ValueError: Invalid config definition: (?P<fault>.+)$", re.M)
_ENTRY = re.compile(r"(?P<name>[A-Za-z_][\w.-]*)=(?P<value>.*)", re.S)


def describe_misuse(text: str, arguments: Iterable[str]) -> str | None:
    """Describe in one line what is wrong with a call and what to write instead; None for other errors.

    Args:
        text: error message of Snakemake.
        arguments: arguments of the command line.
    """
    if not text.startswith("Traceback"):
        return None
    if found := _CONFIG_FILE.search(text):
        return f"config: --configfile {found['name']}: {found['fault']}"
    if found := _CONFIG.search(text):
        return f"config: --config: {_explain_dots(arguments) or found['fault']}"
    return None


def _explain_dots(arguments: Iterable[str]) -> str:
    """Explain how to write the first setting whose name has dots; empty if no name has dots.

    There is no advice for a name with an empty part.
    """
    for entry in arguments:
        found = _ENTRY.fullmatch(entry)
        if found and "." in found["name"]:
            text = f"expected a name without dots, received {entry}"
            first, *others = found["name"].split(".")
            if not all(others):
                return text
            value = _write_in_braces(found["value"])
            for name in reversed(others):
                value = f"{{{name}: {value}}}"
            return f"{text}: write {shlex.quote(f'{first}={value}')}"
    return ""


def _write_in_braces(value: str) -> str:
    """Write a value of `--config` as it must stand inside braces: unchanged if it is read alike there, else as JSON."""
    expected = _read_value(value)
    if _read_value(f"{{name: {value}}}") == {"name": expected}:
        return value
    return json.dumps(expected, ensure_ascii=False)


def _read_value(value: str) -> Any:
    """Read a value as Snakemake reads it inside braces, where numbers, True and False stay text."""
    try:
        return yaml.load(value, yaml.BaseLoader)
    except yaml.YAMLError:
        return value
