"""One-line messages for wrong options that Snakemake rejects with a traceback, before it reads the Snakefile."""

from __future__ import annotations

import re
from collections.abc import Iterable

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
    """Explain how to write the first setting whose name has dots; empty if no name has dots."""
    for entry in arguments:
        found = _ENTRY.fullmatch(entry)
        if found and "." in found["name"]:
            first, *others = found["name"].split(".")
            value = found["value"] or "null"
            for name in reversed(others):
                value = f"{{{name}: {value}}}"
            return f"expected a name without dots, received {entry}: write '{first}={value}'"
    return ""
