"""The package gives its names when they are asked for."""

from __future__ import annotations

import subprocess
import sys


def test_a_metric_is_registered_and_written_without_what_is_heavy():
    code = (
        "import sys; from nfpi.results import register_metric, write_metrics, TableRow; "
        "assert not {'torch', 'pandas', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
