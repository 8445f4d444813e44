"""Work of the stages that collect metrics and write tables."""

from __future__ import annotations

from nfpi.config import json_schema
from nfpi.results.collect import collect
from nfpi.results.csv_files import read_csv, write_csv
from nfpi.results.markup import write_table
from nfpi.results.tables import accuracy_table, read_reference
from nfpi.runs import Run
from nfpi.stages.options import Collect, MakeTable


def collect_metrics(stage: Collect) -> None:
    """Read the metrics of all runs, write one table."""
    (path,) = stage.output_paths()
    write_csv(collect(map(Run.from_json, stage.runs), stage.root), path)
