"""Digests of user code, which must be unchanged when a run is resumed, like settings and data."""

from __future__ import annotations

from nfpi.config.extensions import hash_extension
from nfpi.config.registry import Variant


def compute_code_digest(variant: Variant) -> str:
    """Return the digest of the user's file that defines a variant; empty if nfpi itself defines it."""
    return hash_extension(variant.extension) if variant.extension is not None else ""
