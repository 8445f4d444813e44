"""Digests of user code, which must be unchanged when a run is resumed, like settings and data."""

from __future__ import annotations

from nfpi.config.extensions import extension_digest
from nfpi.config.registry import Variant


def code_of(variant: Variant) -> str:
    """Return the digest of the user's file that defines a variant; empty if nfpi itself defines it."""
    return extension_digest(variant.extension) if variant.extension is not None else ""
