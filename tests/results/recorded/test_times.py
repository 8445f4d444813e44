"""Times of jobs, as Snakemake notes them."""

from __future__ import annotations

import pytest

from nfpi.results.numbers import format_duration
from nfpi.results.recorded.calls import read_benchmark

HEADER = "s\th:m:s\tmax_rss\tcpu_time\n"


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_the_last_run_of_a_job_counts(tmp_path):
    path = write(tmp_path / "train_flow.tsv", HEADER + "12.5\t0:00:12\t210.0\t9.0\n31.25\t0:00:31\t300.5\t20.0\n")
    assert read_benchmark(path) == {"s": 31.25, "max_rss": 300.5, "cpu_time": 20.0}


def test_what_was_too_short_to_measure_is_missing(tmp_path):
    path = write(tmp_path / "table.tsv", HEADER + "0.02\t0:00:00\tNA\tnan\n")
    assert read_benchmark(path) == {"s": 0.02}


@pytest.mark.parametrize("content", ["", HEADER, "nothing", b"\xff\xfe\x00", HEADER + "NA\tNA\tNA\tNA\n"])
def test_a_damaged_file_has_no_time(tmp_path, content):
    assert read_benchmark(write(tmp_path / "evaluate.tsv", content)) == {}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "< 1 s"),
        (59.4, "59 s"),
        (59.7, "1 min"),
        (119.9, "2 min"),
        (125, "2 min 5 s"),
        (629, "10 min"),
        (3599.9, "1 h"),
        (4800, "1 h 20 min"),
        (86400 * 2 + 3600 * 5, "2 d 5 h"),
    ],
)
def test_a_duration_has_its_largest_units(seconds, text):
    assert format_duration(seconds) == text
