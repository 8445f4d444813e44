"""The forest plot: what supports a claim lies right of zero, whatever its direction."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nfpi.figures.claims import draw_claims
from nfpi.figures.style import render_figure
from nfpi.results.claims.judging import COLUMNS

ROW: dict[str, Any] = {
    **{"claim": "repulsion", "number": 1, "statement": "Repulsion helps", "claim_verdict": "replicated"},
    **{"dataset": "digits", "metric": "nf_acc", "first": "ours", "second": "theirs", "direction": "greater"},
    **{"difference": 3.0, "low": 2.0, "high": 4.0, "smallest_effect": 0.5, "verdict": "holds", "seeds": 10},
}


def verdicts(*changes: dict[str, Any]) -> pd.DataFrame:
    """A line for each of these changes."""
    absent = {"str": "", "int64": 0, "Int64": pd.NA, "float64": math.nan}
    rows = [{name: absent[kind] for name, kind in COLUMNS.items()} | ROW | change for change in changes]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def axes_of(figure: Figure) -> Axes:
    (axes,) = figure.axes
    return axes


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in axes_of(figure).texts]


def points(figure: Figure) -> list[tuple[float, float]]:
    """The marks of differences and of the paper's, from above."""
    lines = axes_of(figure).lines
    found = [(line.get_xdata(), line.get_ydata()) for line in lines if line.get_marker() != "None"]
    return [(float(np.ravel(x)[0]), float(np.ravel(y)[0])) for x, y in found]


def intervals(figure: Figure) -> list[list[float]]:
    """Lines from one bound to the other, without the line at zero."""
    lines = [line for line in axes_of(figure).lines if line.get_marker() == "None" and len(set(line.get_xdata())) > 1]
    return [[float(value) for value in line.get_xdata()] for line in lines]


def test_a_comparison_is_a_mark_on_its_interval_below_its_claim():
    figure = draw_claims(verdicts({}, {"difference": -1.0, "low": -2.0, "high": 0.5, "verdict": "inconclusive"}))
    assert points(figure) == [(3, 1), (-1, 2)]  # the statement is line 0
    assert intervals(figure) == [[2, 4], [-2, 0.5]]
    assert texts(figure).count("1. Repulsion helps") == 1


def test_signs_are_turned_where_less_is_claimed():
    figure = draw_claims(
        verdicts({"direction": "less", "difference": -3.0, "low": -4.0, "high": -2.0, "paper_difference": -5.0})
    )
    assert points(figure) == [(3, 1), (5, 1)]
    assert intervals(figure) == [[2, 4]]
    assert any("theirs − ours" in text for text in texts(figure))


@pytest.mark.parametrize(("direction", "shade"), [("greater", (0, 0.5)), ("less", (0, 0.5)), ("not_less", (-0.5, 0))])
def test_the_shade_covers_what_does_not_matter(direction, shade):
    (collection,) = axes_of(draw_claims(verdicts({"direction": direction}))).collections
    (path,) = collection.get_paths()
    assert (path.vertices[:, 0].min(), path.vertices[:, 0].max()) == shade


def test_all_that_is_drawn_lies_within_the_axis():
    frame = verdicts({"difference": 60.0, "low": -80.0, "high": 200.0}, {"paper_difference": -300.0})
    low, high = axes_of(draw_claims(frame)).get_xlim()
    assert low < -300
    assert high > 200


def test_what_was_not_run_has_a_line_without_a_mark():
    unknown = dict.fromkeys(("difference", "low", "high"), math.nan)
    figure = draw_claims(verdicts(unknown | {"verdict": "not run", "claim_verdict": "not run"}))
    assert points(figure) == []
    assert texts(figure).count("not run") == 2  # of the claim and of the comparison


def test_comparisons_on_several_data_sets_name_theirs():
    assert "NF-Acc: ours − theirs" in texts(draw_claims(verdicts({})))
    written = texts(draw_claims(verdicts({}, {"dataset": "cifar10"})))
    assert {"NF-Acc on digits: ours − theirs", "NF-Acc on cifar10: ours − theirs"} <= set(written)


def test_dollar_signs_begin_no_formula():
    figure = draw_claims(verdicts({"statement": r"Costs of $\x and $y", "first": "$10_$20"}))
    assert render_figure(figure, "png")
    assert any(r"\$10_\$20 − theirs" in text for text in texts(figure))
