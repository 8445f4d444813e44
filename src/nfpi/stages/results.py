"""Run the stages that collect metrics and write tables."""

from __future__ import annotations

from nfpi.config.experiments import TableSettings
from nfpi.results.markup.files import write_table
from nfpi.results.recorded.collect import collect, read_collected
from nfpi.results.recorded.csv_files import write_csv
from nfpi.results.tables.building import accuracy_table, read_reference
from nfpi.stages.options import Collect, MakeTable


def collect_metrics(stage: Collect) -> None:
    """Collect the metrics of all runs in one csv file."""
    write_csv(collect(stage.list_runs(), stage.root), stage.get_path("metrics"))


def make_table(stage: MakeTable) -> None:
    """Write a table in all its formats."""
    table = TableSettings.model_validate(stage.table)
    reference = read_reference(stage.reference)
    frame = accuracy_table(read_collected(stage.metrics), table, reference, stage.list_rows(), stage.root)
    write_table(frame, stage.output, stage.name, table.title)
