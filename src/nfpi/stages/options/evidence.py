"""The commands that keep evidence of runs, and rebuild tables from it."""

from __future__ import annotations

from pathlib import Path

from pydantic_settings import CliPositionalArg

from nfpi.stages.options.base import Command


class KeepEvidence(Command):
    """Keep metrics and predictions of the runs of tables.

    The settings of the preset and a checksum of every file are kept with them. Called again, it adds what is new, such
    as more seeds.
    """

    command = "evidence"
    work = "nfpi.stages.evidence:keep_evidence"

    results: CliPositionalArg[Path]
    """results/{preset}"""
    output: Path
    """folder of the evidence, such as docs/evidence/{preset}"""
    class_log_prob: bool = False
    """keep the probabilities of every class in predictions.npz, which no table needs: three times the bytes"""
    with_other_settings: bool = False
    """also take runs whose settings differ from the evidence's: in their place, or beside those of other seeds"""


class RebuildTables(Command):
    """Make tables, claims and figures from evidence alone.

    Without training, in seconds. With --update, blocks of Markdown between `<!-- evidence: PRESET/TABLE -->` and
    `<!-- end -->` are filled in.
    """

    command = "tables"
    work = "nfpi.stages.evidence:rebuild_tables"

    evidence: CliPositionalArg[Path]
    """what `nfpi evidence` wrote, or a folder of several"""
    output: Path | None = None
    """folder that tables, claims and figures are written into, in folders of their presets where there are several"""
    update: list[Path] = []
    """Markdown files whose blocks are filled in; again for more"""
    reference: Path | None = None
    """the paper's numbers (csv); without it: workflow/reference/paper.csv of the clone"""
