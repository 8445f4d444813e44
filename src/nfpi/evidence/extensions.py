"""Comparison of the loaded extension files with those that runs were made with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from nfpi.config.extensions import get_loaded_versions
from nfpi.results.recorded import RecordedRun


def describe_changed_extensions(runs: Sequence[RecordedRun]) -> list[str]:
    """Return one line for each loaded extension file with another content than runs have recorded.

    Tables, claims and settings are read with the loaded files, so they can differ from those of the runs.
    """
    lines = []
    for name, loaded in get_loaded_versions().items():
        recorded = Counter(item.software[name] for item in runs if item.software.get(name, loaded) != loaded)
        if recorded:
            digests = " and ".join(f"{digest} ({count} of {len(runs)} runs)" for digest, count in recorded.items())
            lines.append(f"{name}: expected the file of the runs, with digest {digests}, received digest {loaded}")
    return lines
