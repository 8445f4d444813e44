import itertools

import numpy as np
import pandas as pd
import pytest

from nfpi.figures import CONVERGENCE_COLUMNS, FigureError, convergence_map, residuals, save_figure

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
    figure = residuals([(1e4, SLOW), (1e3, FAST)], **LIMITS)
    for axes, column in zip(figure.axes, ("mean_residual", "variance_residual"), strict=True):
        for line, rows in zip(lines(axes), (FAST, SLOW), strict=True):  # λ ascends
            np.testing.assert_array_equal(line.get_xydata(), rows[["iteration", column]])
        assert axes.get_yscale() == "log"
        assert [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == "--"] == [0.1]
        bottom, top = axes.get_ylim()
        assert bottom < min(FAST[column].min(), SLOW[column].min())
        assert top > max(FAST[column].max(), SLOW[column].max())
    assert labels(figure) == ["λ = $10^{3}$", "λ = $10^{4}$", "tolerance 0.1", "converged"]


def test_weights_have_different_colours():
    figure = residuals([(weight, FAST) for weight in (1, 10, 100, 1e3, 1e4)], **LIMITS)
    assert len({tuple(line.get_color()) for line in lines(figure.axes[0])}) == 5


def test_the_mark_says_how_the_iteration_ended():
    unfinished, diverged = curve(np.full(50, 2.0)), curve([1, 10, 1e30])
    figure = residuals([(1, FAST), (2, unfinished), (3, diverged)], **LIMITS)
    assert marks(figure) == ["o", ">", "X"]
    assert labels(figure)[-3:] == ["converged", "not in 50 iterations", "diverged"]
    assert figure.axes[0].get_ylim()[1] < 1e3  # what runs away does not squash the others


def test_what_is_not_fitted_has_no_panel():
    (axes,) = residuals([(1, curve([3, 0.01], [0, 0]))], **LIMITS).axes
    assert "μ" in axes.get_ylabel()
    (axes,) = residuals([(1, curve([0, 0], [3, 0.01]))], **LIMITS).axes
    assert "v" in axes.get_ylabel()


def test_a_fit_that_diverged_at_once_is_in_the_legend(tmp_path):
    figure = residuals([(1e3, FAST), (1e7, curve([]))], **LIMITS)
    assert "λ = $10^{7}$" in labels(figure)
    assert labels(figure)[-1] == "diverged"
    save_figure(figure, tmp_path / "figure")


def test_no_residuals_are_an_error():
    with pytest.raises(FigureError, match="at least one iteration"):
        residuals([(1e7, curve([]))], **LIMITS)
    with pytest.raises(FigureError, match="column variance_residual is missing"):
        residuals([(1, FAST.drop(columns="variance_residual"))], **LIMITS)


WEIGHTS = (1e2, 1e3, 1e4)
LOST = {"quantity": "A (definiteness)", "class": "2", "outcome": "diverged"}


def fits(**changes) -> pd.DataFrame:
    """All combinations, of which the largest λ does what `changes` say."""
    fine = {"quantity": "", "class": "", "outcome": "converged", "dataset": "toy", "alpha": 10.0}
    combinations = itertools.product(("both", "mean", "variance"), ("released", "exact"), ("pairwise", "average"))
    rows = [
        {"fitted": fitted, "update": update, "scale": scale, "lambda": weight, **fine, "iterations": 2 * index + 1}
        | (changes if weight == max(WEIGHTS) else {})
        for fitted, update, scale in combinations
        for index, weight in enumerate(WEIGHTS)
    ]
    return pd.DataFrame(rows)[list(CONVERGENCE_COLUMNS)]


def cells(axes) -> list[list[str]]:
    """What is written, row by row."""
    written = {text.get_position(): text.get_text() for text in axes.texts}
    return [[written[column, row] for column in range(len(WEIGHTS))] for row in range(4)]


def test_every_fit_has_a_cell_with_its_iterations():
    groups = convergence_map(fits()).axes[:3]
    assert [axes.get_title(loc="left") for axes in groups] == ["$μ$ and $Σ$", "$μ$ only, $Σ = I$", "$Σ$ only"]
    for axes in groups:
        assert cells(axes) == [["1", "3", "5"]] * 4
        assert len(axes.patches) == 12
    assert [label.get_text() for label in groups[0].get_yticklabels()] == [
        *("released, pairwise π", "released, average π", "exact, pairwise π", "exact, average π")
    ]
    assert [label.get_text() for label in groups[-1].get_xticklabels()] == ["$100$", "$10^{3}$", "$10^{4}$"]


def test_more_iterations_are_darker():
    shades = [sum(patch.get_facecolor()[:3]) for patch in convergence_map(fits()).axes[0].patches[:3]]
    assert shades[0] > shades[1] > shades[2]


def test_cells_without_a_fixed_point_say_why():
    figure = convergence_map(fits(**LOST, iterations=4))
    assert cells(figure.axes[0]) == [["1", "3", "A"]] * 4
    assert labels(figure) == ["diverged: $A$ not positive"]
    figure = convergence_map(fits(outcome="not_converged", iterations=1000))
    assert cells(figure.axes[0]) == [["1", "3", ""]] * 4
    assert figure.axes[0].patches[2].get_hatch()
    assert labels(figure) == ["not in 1000 iterations"]


def test_a_map_can_be_written(tmp_path):
    save_figure(convergence_map(fits(**LOST, iterations=1)), tmp_path / "figure")
    assert {file.name for file in tmp_path.iterdir()} == {"figure.png", "figure.pdf"}


def test_other_tables_are_no_map():
    with pytest.raises(FigureError, match="empty"):
        convergence_map(fits()[:0])
    with pytest.raises(FigureError, match="column outcome is missing"):
        convergence_map(fits().drop(columns="outcome"))
