"""The functions, classes and modules that the documentation names exist."""

from __future__ import annotations

import pkgutil
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAME = re.compile(r"`(?:nfpi\.)?([a-z_]+(?:\.\w+)+)`")
QUALIFIED = re.compile(r"`nfpi\.([\w.]+)[`(]")


def list_names() -> list[tuple[str, str]]:
    """Return the file and the name, relative to the package, of each name; equations.md leaves out `nfpi.`."""
    found = set()
    for path in FILES:
        pattern = NAME if path.name == "equations.md" else QUALIFIED
        found |= {(path.name, name) for name in pattern.findall(path.read_text(encoding="utf-8"))}
    return sorted(found)


@pytest.mark.parametrize(("file", "name"), list_names())
def test_a_name_exists(file: str, name: str):
    assert pkgutil.resolve_name(f"nfpi.{name}") is not None
