"""Explanations of metrics on a page."""

from __future__ import annotations

import pytest

from nfpi.config.metrics import METRICS, register_metric
from nfpi.page.runs import explain_metrics
from nfpi.results.metrics import BINS


@pytest.mark.parametrize("name", [name for name in METRICS if not name.startswith("validation_")])
def test_every_metric_that_tables_show_is_explained(name):
    if name != "divergence":  # of claims only
        assert explain_metrics([name]), f"metric '{name}': add its meaning in nfpi/config/metrics.py"


def test_the_number_of_bins_is_that_of_the_computation():
    assert f"{BINS} bins" in explain_metrics(["ece"])[0][1]


def test_a_metric_of_the_users_is_explained_if_it_has_a_meaning():
    register_metric("own", label="Own", meaning="distance from the truth")
    register_metric("silent", label="Silent")
    try:
        assert explain_metrics(["own", "silent"]) == [("Own", "distance from the truth")]
    finally:
        METRICS.remove("own")
        METRICS.remove("silent")
