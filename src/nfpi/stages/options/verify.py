"""The command that checks results."""

from __future__ import annotations

from pathlib import Path

from pydantic_settings import CliPositionalArg

from nfpi.stages.options.base import Command


class Verify(Command):
    """Check a folder of results against its manifests.

    Prints one line per fault, and exits with 1 if there is any.
    """

    command = "verify"
    work = "nfpi.stages.verify:verify"

    results: CliPositionalArg[Path]
    """folder of results, or a part of it"""
