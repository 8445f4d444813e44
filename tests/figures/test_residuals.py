import numpy as np
import pandas as pd
import pytest

from nfpi.figures import Drawn, FigureInputs, save_drawn
from nfpi.figures.residuals import ResidualsFigure, draw, draw_residuals
from nfpi.results import write_csv

LIMITS = {"dataset": "toy", "tolerance": 0.1, "max_iterations": 50}


def curve(means, variances=None) -> pd.DataFrame:
    means = np.asarray(means, dtype=float)
    variances = 2 * means if variances is None else np.asarray(variances, dtype=float)
    iterations = np.arange(1, len(means) + 1)
    return pd.DataFrame({"iteration": iterations, "mean_residual": means, "variance_residual": variances})


FAST, SLOW = curve([10, 1, 0.04]), curve([100, 30, 10, 3, 1, 0.3, 0.02])


def lines(axes):
    """The curves, without marks and the tolerance."""
    return [line for line in axes.lines if line.get_linestyle() == "-" and line.get_marker() == "None"]


def marks(figure) -> list[str]:
    return [line.get_marker() for line in figure.axes[0].lines if line.get_marker() != "None"]


def labels(figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_every_residual_is_on_its_curve():
    figure = draw_residuals([(1e4, SLOW), (1e3, FAST)], **LIMITS)
    for axes, column in zip(figure.axes, ("mean_residual", "variance_residual"), strict=True):
        for line, rows in zip(lines(axes), (FAST, SLOW), strict=True):  # λ ascends
            np.testing.assert_array_equal(line.get_xydata(), rows[["iteration", column]])
        assert axes.get_yscale() == "log"
        assert [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == "--"] == [0.1]
        bottom, top = axes.get_ylim()
        assert bottom < min(FAST[column].min(), SLOW[column].min())
        assert top > max(FAST[column].max(), SLOW[column].max())
    assert labels(figure) == ["λ = $10^{3}$", "λ = $10^{4}$", "tolerance 0.1", "converged"]


def test_the_mark_says_how_the_iteration_ended():
    unfinished, diverged = curve(np.full(50, 2.0)), curve([1, 10, 1e30])
    figure = draw_residuals([(1, FAST), (2, unfinished), (3, diverged)], **LIMITS)
    assert marks(figure) == ["o", ">", "X"]
    assert figure.axes[0].get_ylim()[1] < 1e3  # what runs away does not squash the others


def test_a_tolerance_of_zero_is_below_the_axis():
    limits = LIMITS | {"tolerance": 0.0, "max_iterations": 3}
    (axes, _) = draw_residuals([(1, curve([10, 1, 0.1]))], **limits).axes
    np.testing.assert_allclose(axes.get_ylim(), [0.05, 50])


def test_an_axis_without_positive_residuals_has_limits():
    (axes, _) = draw_residuals([(1, curve([np.inf, 1]))], **LIMITS | {"tolerance": 0.0}).axes
    assert 0 < axes.get_ylim()[0] < axes.get_ylim()[1]


def test_what_is_not_fitted_has_no_panel():
    (axes,) = draw_residuals([(1, curve([3, 0.01], [0, 0]))], **LIMITS).axes
    assert "μ" in axes.get_ylabel()
    (axes,) = draw_residuals([(1, curve([0, 0], [3, 0.01]))], **LIMITS).axes
    assert "v" in axes.get_ylabel()


def test_a_fit_that_diverged_at_once_is_in_the_legend(tmp_path):
    figure = draw_residuals([(1e3, FAST), (1e7, curve([]))], **LIMITS)
    assert "λ = $10^{7}$" in labels(figure)
    assert labels(figure)[-1] == "diverged"
    save_drawn(Drawn({"figure": figure}), tmp_path, "figure")


def test_fits_that_all_diverged_at_once_are_drawn_as_a_notice(tmp_path):
    write_csv(curve([]), tmp_path / "fixed_point.csv")
    inputs = FigureInputs({"iterations": [tmp_path / "fixed_point.csv"]}, {"prior": {}})
    (text,) = draw(ResidualsFigure(dataset="toy", lambdas=[1e7]), inputs).pictures["residuals"].texts
    assert "diverged" in text.get_text()


def test_residuals_are_read_from_a_file_for_each_weight(tmp_path):
    files = [tmp_path / "slow.csv", tmp_path / "fast.csv"]
    for file, rows in zip(files, (SLOW, FAST), strict=True):
        write_csv(rows, file)
    settings = ResidualsFigure(dataset="toy", lambdas=[1e4, 1e3])
    read = {"prior": {"tolerance": 0.5, "max_iterations": 3}}
    figure = draw(settings, FigureInputs({"iterations": files}, read)).pictures["residuals"]
    assert labels(figure) == ["λ = $10^{3}$", "λ = $10^{4}$", "tolerance 0.5", "converged"]
    np.testing.assert_array_equal(lines(figure.axes[0])[0].get_xydata(), FAST[["iteration", "mean_residual"]])
    with pytest.raises(ValueError, match="shorter"):
        draw(settings, FigureInputs({"iterations": files[:1]}, read))
