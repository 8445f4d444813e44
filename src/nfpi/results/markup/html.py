"""Tables in HTML, as documents or as parts of a page."""

from __future__ import annotations

import functools
import html
import os
import re
from pathlib import Path
from urllib.parse import quote

import pandas as pd
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from nfpi.results.tables.layout import Markup, Spread, lay_out

_SPACES = re.compile(r"\s+")


@functools.cache
def load_templates(package: str) -> Environment:
    """Load a Jinja environment that escapes all values, with the templates of a package and those of tables."""
    loader = ChoiceLoader([PackageLoader(package, "templates"), PackageLoader("nfpi.results.markup", "templates")])
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["urlencode"] = lambda path: quote(os.fsencode(path))  # Jinja's own filter requires UTF-8
    return environment


def to_html(frame: pd.DataFrame, title: str) -> str:
    """Return the table as a self-contained HTML document with sortable columns.

    Raises:
        TableError: a column is missing.
    """
    table = lay_out(frame, HTML)
    title = _collapse_spaces(title)
    document = load_templates("nfpi.results.markup").get_template("document.html")
    return document.render(tables=[(title or "Results", table)], title=title)


def read_title(path: Path) -> str | None:
    """Return the title of a document written by :func:`to_html`; None if there is none."""
    try:
        title = re.search(r"<title>(.*?)</title>", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    except (OSError, UnicodeDecodeError):
        return None
    return html.unescape(title[1]) if title else None


def _collapse_spaces(text: str) -> str:
    return _SPACES.sub(" ", text).strip()


def _format_spread(spread: Spread) -> str:
    std = "" if pd.isna(spread.std) else f" ± {spread.std:.{spread.decimals}f}"
    return std + (f' <span class="interval">{spread.interval}</span>' if spread.has_interval else "")


HTML = Markup(
    escape=html.escape,
    format_power=lambda mantissa, exponent: f"{mantissa}10<sup>{str(exponent).replace('-', '−')}</sup>",
    format_spread=_format_spread,
    interval="[low, high]",
    weight="λ",
    arrows={True: "↑", False: "↓"},
    equal="<sup>†</sup>",
)
