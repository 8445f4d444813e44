"""The pictures of docs/images show what their commands would draw, as far as it can be told without running them."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]
PICTURES = runpy.run_path(str(ROOT / "docs/pictures.py"))


def test_every_picture_has_a_command():
    assert {path.stem for path in (ROOT / "docs/images").iterdir()} == set(PICTURES["PICTURES"])


def test_no_picture_is_stale():
    stale = PICTURES["list_stale"]()
    assert not stale, f"python docs/pictures.py {' '.join(stale)}"
