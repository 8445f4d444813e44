"""The package gives its names when they are asked for."""

from __future__ import annotations

import subprocess
import sys

import nfpi.results


def test_every_public_name_is_there():
    for name in nfpi.results.__all__:
        assert getattr(nfpi.results, name).__module__.startswith("nfpi.")


def test_a_metric_is_registered_and_written_without_what_is_heavy():
    code = (
        "import sys; from nfpi.results import register_metric, write_metrics, TableRow; "
        "assert not {'torch', 'pandas', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
