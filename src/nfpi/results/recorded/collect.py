"""Collection of the metrics of many runs into one long table, one row per value."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from nfpi.config.metrics import VALIDATION_PREFIX
from nfpi.results.recorded.csv_files import CsvError, read_csv
from nfpi.results.recorded.records import MetricsError, describe_divergence, read_record
from nfpi.runs import METRICS_FILE, Run

_NAMES = ("dataset", "flow", "prior", "lambda", "seed", "classifier", "augmentation")
IDENTITY = dict.fromkeys(_NAMES, "str") | {"lambda": "float64", "seed": "int64"}
"""Columns of :meth:`nfpi.runs.Run.row` and their types; a property that a run lacks is empty."""

COLUMNS = IDENTITY | {"metric": "str", "value": "float64", "n": "Int64", "status": "str", "run": "str"}
"""Columns of the collected table and their types.

Each row has the identity of a run, one of its values, the number `n` of images that it was measured on, the status
(`ok`, or how the run diverged), and the folder of the run.
"""


def collect(runs: Iterable[Run], root: str | os.PathLike[str]) -> pd.DataFrame:
    """Collect all values of all runs in long form, one row per value, independent of the order of `runs`.

    A diverged run has one row with an empty metric and value, and its `status` describes the divergence.

    Args:
        runs: runs whose metrics are read.
        root: the folder results/{preset} that contains them.

    Returns:
        A frame with the columns :data:`COLUMNS`.

    Raises:
        MetricsError: a file is not a metrics.json, or belongs to another run.
        OSError: a file is missing or cannot be read.
    """
    return make_frame({run: _read_record(run, Path(root) / run.folder / METRICS_FILE) for run in set(runs)})


def make_frame(records: Mapping[Run, Mapping[str, Any]]) -> pd.DataFrame:
    """Make the frame of :func:`collect` from the contents of each run's metrics.json."""
    rows = [row for run, record in records.items() for row in make_rows(run, record)]
    frame = pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)
    return frame.sort_values([*IDENTITY, "metric"], ignore_index=True)


def read_collected(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read the csv file of a table made by :func:`collect`.

    Raises:
        CsvError: a column is missing or of another type, a value is missing or not finite.
    """
    frame = read_csv(path, COLUMNS)
    invalid = frame[(frame["status"] == "ok") & ~frame["value"].abs().lt(math.inf)]
    if len(invalid):
        run, metric = invalid.iloc[0]["run"], invalid.iloc[0]["metric"]
        raise CsvError(f"{path}: expected a finite number as {metric} of {run}, received {invalid.iloc[0]['value']}")
    return frame


def _read_record(run: Run, path: Path) -> dict[str, Any]:
    """Read the metrics.json of a run, and check that it belongs to this run."""
    record = read_record(path)
    if "run" in record:
        try:
            received = Run.from_json(record["run"])
        except (ValueError, AttributeError):
            raise MetricsError(f"{path}: expected the identity of a run, received {record['run']!r}") from None
        if received != run:
            raise MetricsError(f"{path}: expected the metrics of {run.folder}, received those of {received.folder}")
    elif "diverged" not in record:
        raise MetricsError(f"{path}: expected the identity of the run (--identity), received none")
    return record


def make_rows(run: Run, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of one run in the frame of :func:`collect`."""
    identity = run.row() | {"n": record.get("n"), "run": run.folder, "status": "ok"}
    if "diverged" in record:
        status = describe_divergence(record["diverged"])
        return [identity | {"metric": "", "value": math.nan, "status": status}]
    on_validation = {"n": record.get("validation_n")}
    return [
        identity | {"metric": name, "value": value} | (on_validation if name.startswith(VALIDATION_PREFIX) else {})
        for name, value in sorted(record["metrics"].items())
    ]
