"""The page in a real browser, as wide as a laptop and as a phone (Debian's package chromium)."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from nfpi.page.write import write_page

from .conftest import Results

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
LAPTOP, PHONE = (1280, 800), (390, 844)

MEASURE = """
<script>
addEventListener("load", () => {
  const table = document.querySelector("#table-table2 table");
  const column = () => [...table.tBodies[0].rows].map((row) => row.cells[1].textContent);
  const orders = [];
  for (let click = 0; click < 2; click++) {
    table.querySelector("th[data-column='1'] button").click();
    orders.push(column());
  }
  const isShown = (element) => element.getBoundingClientRect().width > 0 && element.getBoundingClientRect().height > 0;
  const found = parent.document.createElement("pre");
  found.id = "found";
  found.textContent = JSON.stringify({
    width: innerWidth,
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    broken: [...document.images].filter((image) => !image.naturalWidth || !isShown(image)).map((image) => image.alt),
    images: document.images.length,
    samples: document.querySelector("header > figure img").getBoundingClientRect().height,
    tables: [...document.querySelectorAll("figure.table table")].filter(isShown).length,
    figures: [...document.querySelectorAll("figure.figure")].filter(isShown).map((figure) => figure.id),
    confusion: [...document.querySelectorAll("table.confusion")].filter(isShown).length,
    orders,
  });
  parent.document.body.append(found);
});
</script>
"""


def open_page(page: Path, folder: Path, size: tuple[int, int]) -> tuple[dict[str, Any], str]:
    """What a script finds in the page, and the browser's messages.

    The page stands in a frame of that size, for a window is at least 500 pixels wide.
    """
    copy = folder / "index.html"
    text = page.read_text(encoding="utf-8").replace(' loading="lazy"', "").replace("<details", "<details open")
    text = html.escape(text.replace("</head>", f"{MEASURE}</head>"))
    frame = f'<iframe width="{size[0]}" height="{size[1]}" style="border: 0" srcdoc="{text}"></iframe>'
    copy.write_text(f'<!doctype html><meta charset="utf-8"><title>frame</title><body>{frame}</body>', encoding="utf-8")
    command = [
        *(str(BROWSER), "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
        *("--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}", "--window-size=1400,900"),
        *("--virtual-time-budget=10000", "--dump-dom", copy.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, flags=re.DOTALL)
    assert found, done.stderr[-2000:]
    return json.loads(html.unescape(found[1])), done.stderr


@pytest.mark.skipif(BROWSER is None, reason="no chromium")
@pytest.mark.parametrize("size", [LAPTOP, PHONE], ids=["laptop", "phone"])
def test_everything_is_shown_and_nothing_goes_wrong(
    finished_results: Results, tmp_path: Path, size: tuple[int, int]
) -> None:
    found, messages = open_page(write_page(finished_results.root), tmp_path, size)
    assert "CONSOLE" not in messages
    assert found["width"] == size[0]
    assert found["overflow"] <= 0, "the page itself does not scroll sideways"
    assert found["broken"] == []
    assert found["images"] == 9, "the samples also at the head"
    assert 0 < found["samples"] <= 300
    assert found["tables"] == 2, "table2, time"
    assert found["figures"] == ["figure-figure1", "figure-samples"]
    assert found["confusion"] == 5
    assert [[text.split()[0] if text else "" for text in order] for order in found["orders"]] == [
        ["80.0", "95.0", ""],
        ["95.0", "80.0", ""],
    ], "sorted up and down, unknown cells last"


@pytest.mark.skipif(BROWSER is None, reason="no chromium")
def test_an_error_of_a_script_would_be_seen(finished_results: Results, tmp_path: Path) -> None:
    page = tmp_path / "broken.html"
    text = write_page(finished_results.root).read_text(encoding="utf-8")
    page.write_text(text.replace("</body>", "<script>throw new Error('seen')</script></body>"), encoding="utf-8")
    _, messages = open_page(page, tmp_path, LAPTOP)
    assert "CONSOLE" in messages
