"""Explanations of metrics on a page."""

from __future__ import annotations

import pytest

from nfpi.config import list_computed_metrics
from nfpi.page.meanings import explain_metrics


@pytest.mark.parametrize("name", list_computed_metrics())
def test_every_computed_metric_is_explained(name):
    assert explain_metrics([name]), f"metric '{name}' has no explanation: add one to _MEANINGS in nfpi/page/meanings.py"


def test_explanations_are_in_a_fixed_order_and_only_of_the_metrics_that_are_shown():
    first, second = explain_metrics(["worst_class_acc", "unknown", "nf_acc"])
    assert first.startswith("NF-Acc: ")
    assert second.startswith("Worst class: ")
