"""The commands that keep evidence of runs, and rebuild tables from it."""

from __future__ import annotations

from pathlib import Path

from pydantic_settings import CliPositionalArg

from nfpi.stages.options.base import Command


class KeepEvidence(Command):
    """Copy the metrics and predictions that tables use.

    Also keeps the settings of the preset and a checksum of every file. Called again, it adds new runs, such as more
    seeds.
    """

    command = "evidence"
    work = "nfpi.stages.evidence:keep_evidence"

    results: CliPositionalArg[Path]
    """results/{preset}"""
    output: Path
    """folder of the evidence, e.g. docs/evidence/{preset}"""
    class_log_prob: bool = False
    """keep the probabilities of all classes in predictions.npz; no table needs them, and they take most of the bytes"""
    with_other_settings: bool = False
    """also keep runs whose settings differ from those of the workflow's last call or of the evidence; runs that the
    evidence already has are replaced"""


class RebuildTables(Command):
    """Make tables, claims and figures from evidence alone.

    Takes seconds, without training. With --update, fills in the blocks between `<!-- evidence: PRESET/TABLE -->` and
    `<!-- end -->` of Markdown files.
    """

    command = "tables"
    work = "nfpi.stages.evidence:rebuild_tables"

    evidence: CliPositionalArg[Path]
    """output of `nfpi evidence`, or a folder that contains several such outputs"""
    output: Path | None = None
    """folder for tables, claims and figures, with one folder per preset if `evidence` contains folders of evidence"""
    update: list[Path] = []
    """Markdown file whose blocks are filled in; may be repeated"""
    reference: Path | None = None
    """the paper's numbers (csv); None: workflow/reference/paper.csv of the clone"""
