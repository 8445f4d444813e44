"""Comparison of the loaded extension files with those that runs were made with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from nfpi.config.extensions import get_loaded_names, get_loaded_versions
from nfpi.config.metrics import METRICS, find_registered_name
from nfpi.config.settings import Config
from nfpi.results.recorded.runs import RecordedRun


def describe_changed_extensions(runs: Sequence[RecordedRun], config: Config) -> list[str]:
    """Return one line for each loaded extension file with another content than runs that use it have recorded.

    Tables, claims and settings are read with the loaded files, so they can differ from those of the runs.

    Args:
        runs: the runs, which record the files loaded when they were evaluated, also those that they do not use.
        config: settings of the preset, which tell which files a run uses.
    """
    versions, used = get_loaded_versions(), [_list_used_files(item, config) for item in runs]
    lines = []
    for file, name in get_loaded_names().items():
        users = [item for item, files in zip(runs, used, strict=True) if file in files]
        loaded = versions[name]
        recorded = Counter(item.software[name] for item in users if item.software.get(name, loaded) != loaded)
        if recorded:
            digests = " and ".join(f"{digest} ({count} of {len(users)} runs)" for digest, count in recorded.items())
            expected = f"expected the file of the runs that use it, with digest {digests}"
            lines.append(f"{name}: {expected}, received digest {loaded}")
    return lines


def _list_used_files(item: RecordedRun, config: Config) -> set[Path]:
    """Return the loaded files that define the data set, flow, prior, classifier or metrics of a run.

    What the settings no longer have is not considered.
    """
    run = item.run
    config = config.for_dataset(run.dataset) if run.dataset in config.datasets else config
    files = config.list_extensions(dataset=run.dataset, flow=run.flow, prior=run.prior, classifier=run.classifier)
    registered = [name for name in map(find_registered_name, item.metrics) if name in METRICS]
    return {*files, *(file for name in registered if (file := METRICS[name].extension) is not None)}
