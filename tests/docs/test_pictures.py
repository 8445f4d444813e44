"""The pictures of docs/images are those that the documents show, and each has a command that draws it."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_every_picture_is_there_has_a_command_and_is_shown():
    pictures = runpy.run_path(str(ROOT / "docs/pictures.py"))["PICTURES"]
    shown = {
        name
        for document in DOCUMENTS
        for name in re.findall(r"images/(\w+)\.png", document.read_text(encoding="utf-8"))
    }
    assert {path.stem for path in (ROOT / "docs/images").iterdir()} == set(pictures) == shown
