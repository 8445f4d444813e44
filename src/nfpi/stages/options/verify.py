"""The command that checks results."""

from __future__ import annotations

from pathlib import Path

from pydantic_settings import CliPositionalArg

from nfpi.stages.options.base import Command


class Verify(Command):
    """Check a folder of results against its manifests.

    One line a fault; the status is 1 where there is one.
    """

    command = "verify"
    work = "nfpi.stages.verify:verify"

    results: CliPositionalArg[Path]
    """folder of results, or a part of it"""
