"""The verdicts on claims, as shown on the page of results."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from nfpi.page.pictures import Picture, embed_file
from nfpi.results.claims.layout import NAME, lay_out_claims, read_claims
from nfpi.results.markup.html import HTML
from nfpi.results.recorded.logs import CsvError
from nfpi.results.tables.layout import Table
from nfpi.runtime.manifests import ManifestError, find_product


@dataclass(frozen=True)
class ShownClaims:
    """The verdicts on claims, or the reason why they are missing.

    Attributes:
        tables: tables of claims and of comparisons, with their titles.
        picture: the forest plot, if there is one.
        files: files in all formats, relative to the page; empty if claims were not judged.
        fault: one line that names what is missing or damaged.
    """

    tables: list[tuple[str, Table]] = field(default_factory=list)
    picture: Picture | None = None
    files: list[str] = field(default_factory=list)
    fault: str = ""


def read_shown_claims(root: Path) -> ShownClaims:
    """Read the verdicts in a folder of results."""
    path = root / f"{NAME}.csv"
    files = [f"{NAME}.{suffix}" for suffix in ("csv", "md", "tex", "html", "png", "pdf")]
    files = [file for file in files if (root / file).is_file()]
    try:
        if find_product(path) is None and not files:
            return ShownClaims()
        tables = lay_out_claims(read_claims(path), HTML)
        return ShownClaims(
            tables, embed_file(root / f"{NAME}.png", "Figure: differences that decide the claims", ""), files
        )
    except (ManifestError, CsvError, ValueError, OSError) as error:
        return ShownClaims(files=files, fault=" ".join(str(error).split()))
