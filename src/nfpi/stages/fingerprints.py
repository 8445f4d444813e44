"""What a run that is resumed must agree in, besides settings and data: the user's code that it uses."""

from __future__ import annotations

from nfpi.config.extensions import extension_digest
from nfpi.config.registry import Variant


def code_of(variant: Variant) -> str:
    """Digest of the user's file that defines a variant; empty: it is the project's own."""
    return extension_digest(variant.extension) if variant.extension is not None else ""
