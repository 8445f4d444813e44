from __future__ import annotations

import itertools

import pandas as pd
import pytest
import torch

from nfpi.figures import FigureInputs
from nfpi.figures.convergence_map import (
    COLUMNS,
    DIVERGENCE_CAUSES,
    ConvergenceFigure,
    compute_convergence,
    draw,
    draw_convergence_map,
)
from nfpi.priors import ClassStatistics, FixedPointConfig, GaussianPrior, fit_fixed_point
from nfpi.priors.files import save_prior, save_statistics

# ---- computation ----------------------------------------------------------------------------------------------

MAP = ConvergenceFigure(dataset="toy", lambdas=[1e6, 1, 30])


@pytest.fixture(scope="module")
def statistics() -> ClassStatistics:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(4).repeat_interleave(50)
    means = torch.randn(4, 6, generator=generator)
    return ClassStatistics.from_latents(means[labels] + torch.randn(200, 6, generator=generator), labels)


@pytest.fixture(scope="module")
def initial(statistics) -> GaussianPrior:
    return GaussianPrior(statistics.mean, 1.5 * statistics.variance)


@pytest.fixture(scope="module")
def table(statistics, initial) -> pd.DataFrame:
    return pd.DataFrame(compute_convergence(statistics, initial, MAP), columns=COLUMNS)


def test_every_combination_is_tried_once(table):
    assert list(table.columns) == COLUMNS
    keys = ["fitted", "update", "scale", "lambda"]
    assert len(table) == len(table[keys].drop_duplicates()) == 3 * 2 * 2 * 3
    assert set(table["outcome"]) == {"converged", "diverged"}
    draw_convergence_map(table)


@pytest.mark.parametrize(
    ("fitted", "mean", "variance"), [("both", True, True), ("mean", True, False), ("variance", False, True)]
)
def test_outcomes_are_those_of_the_fits(table, statistics, initial, fitted, mean, variance):
    start = initial if variance else GaussianPrior(initial.mean, torch.ones_like(initial.mean))
    converged = table[(table["fitted"] == fitted) & (table["outcome"] == "converged")]
    assert set(converged["lambda"]) >= {1, 30}
    for row in converged.to_dict("records"):
        config = FixedPointConfig(
            weight=row["lambda"], update=row["update"], scale=row["scale"], fit_mean=mean, fit_variance=variance
        )
        result = fit_fixed_point(statistics, config, start)
        assert result.converged
        assert result.iterations == row["iterations"]


def test_means_under_identity_have_one_update_only(table):
    """With Σ = I the released update and the exact one are the same."""
    released, exact = (
        table[(table["fitted"] == "mean") & (table["update"] == update)].drop(columns="update").reset_index(drop=True)
        for update in ("released", "exact")
    )
    pd.testing.assert_frame_equal(released, exact)


def test_a_divergence_is_told_with_what_when_and_whose(table):
    exact = table[(table["fitted"] == "both") & (table["update"] == "exact") & (table["lambda"] == 1e6)]
    assert (exact["outcome"] == "diverged").all()
    quantities = ["A (not positive definite)", "repulsion kernel", "KLDs (below rounding error)", "variance", "mean"]
    assert exact["quantity"].isin(quantities).all()
    assert exact["class"].isin(list("0123")).all()
    assert (exact["iterations"] >= 1).all()


def test_a_map_is_made_from_the_files_of_an_initial_state(table, statistics, initial, tmp_path):
    save_statistics(tmp_path / "statistics.safetensors", statistics, {})
    save_prior(tmp_path / "prior.safetensors", initial, {})
    files = {"statistics": [tmp_path / "statistics.safetensors"], "initial": [tmp_path / "prior.safetensors"]}
    pd.testing.assert_frame_equal(draw(MAP, FigureInputs(files)).table, table)


# ---- drawing --------------------------------------------------------------------------------------------------


WEIGHTS = (1e2, 1e3, 1e4)
LOST_A = {"quantity": "A (not positive definite)", "class": "2", "outcome": "diverged"}


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
    return pd.DataFrame(rows)[COLUMNS]


def cells(axes) -> list[list[str]]:
    """What is written, row by row."""
    written = {text.get_position(): text.get_text() for text in axes.texts}
    return [[written[column, row] for column in range(len(WEIGHTS))] for row in range(4)]


def test_every_fit_has_a_cell_with_its_iterations():
    groups = draw_convergence_map(fits()).axes[:3]
    for axes in groups:
        assert cells(axes) == [["1", "3", "5"]] * 4
        assert len(axes.patches) == 12


def test_cells_without_a_fixed_point_say_why():
    figure = draw_convergence_map(fits(**LOST_A, iterations=4))
    assert cells(figure.axes[0]) == [["1", "3", "A"]] * 4
    figure = draw_convergence_map(fits(outcome="not_converged", iterations=1000))
    assert cells(figure.axes[0]) == [["1", "3", ""]] * 4
    assert figure.axes[0].patches[2].get_hatch()


def test_a_letter_stands_for_one_thing_which_the_caption_and_the_figure_name():
    """The rows' scale π is none of them."""
    letters = [letter for letter, _ in DIVERGENCE_CAUSES.values()]
    assert len(set(letters)) == len(letters)
    assert "π" not in letters
    for quantity, (letter, meaning) in DIVERGENCE_CAUSES.items():
        figure = draw_convergence_map(fits(**LOST_A | {"quantity": quantity}, iterations=4))
        assert cells(figure.axes[0]) == [["1", "3", letter]] * 4
        assert f"{letter}: {meaning}" in ConvergenceFigure.caption
        assert f"{letter}: {meaning}" in figure.get_supxlabel()
