import numpy as np
import pandas as pd
import pytest

from nfpi.figures import EMBEDDING_COLUMNS, FigureError, class_gaussians, save_figure
from nfpi.figures.style import class_style


def panel(variant, name, outcome, centres, classes=("cat", "dog", "frog"), spread=1.0, count=20):
    generator = np.random.default_rng(0)
    return pd.DataFrame(
        [
            {"dataset": "toy", "variant": variant, "panel": name, "quantity": "", **outcome, "class": label}
            | dict(zip("xy", centre + spread * generator.normal(size=2), strict=True))
            for label, centre in zip(classes, centres, strict=True)
            for _ in range(count)
        ]
    )


def table(*large, classes=("cat", "dog", "frog")):
    """All panels of the variant diagonal; `large` in place of a last one that converged."""
    near = np.random.default_rng(1).normal(size=(len(classes), 2)) * 5
    nothing = {"lambda": np.nan, "outcome": "", "iterations": None}
    panels = [
        panel("both", "images", nothing, near, classes),
        panel("diagonal", "data", nothing | {"lambda": 0.0}, near, classes),
        panel("diagonal", "small", {"lambda": 1e3, "outcome": "converged", "iterations": 12}, near, classes),
        *(
            large
            or [panel("diagonal", "large", {"lambda": 1e5, "outcome": "converged", "iterations": 34}, near, classes)]
        ),
    ]
    return pd.concat(panels)[list(EMBEDDING_COLUMNS)].astype({"iterations": "Int64"})


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes]


def cloud(axes):
    return np.asarray(axes.collections[0].get_offsets())


def test_four_panels_hold_all_points_on_the_same_axes():
    frame = table()
    figure = class_gaussians(frame, "diagonal")
    assert len({(axes.get_xlim(), axes.get_ylim()) for axes in figure.axes}) == 1
    for axes, name in zip(figure.axes, ("images", "data", "small", "large"), strict=True):
        rows = frame[frame["panel"] == name]
        assert sorted(cloud(axes).tolist()) == sorted(rows[["x", "y"]].to_numpy().tolist())
        (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
        assert rows["x"].between(left, right).all()
        assert rows["y"].between(bottom, top).all()


def test_titles_say_weight_and_iterations():
    assert titles(class_gaussians(table(), "diagonal")) == [
        "(a) 60 images",
        "(b) Gaussians, $λ = 0$",
        "(c) $λ =$ $10^{3}$, 12 iterations",
        "(d) $λ =$ $10^{5}$, 34 iterations",
    ]


def test_a_class_has_one_colour_in_all_panels_and_in_the_legend():
    figure = class_gaussians(table(), "diagonal")
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["cat", "dog", "frog"]
    assert legend.get_title().get_text() == "toy"
    for axes in figure.axes:
        assert [line.get_markerfacecolor() for line in axes.lines] == [class_style(index)[0] for index in range(3)]


def test_the_large_marks_are_the_means_of_the_points():
    frame = table()
    axes = class_gaussians(frame, "diagonal").axes[2]
    means = frame[frame["panel"] == "small"].groupby("class")[["x", "y"]].mean()
    np.testing.assert_allclose([line.get_xydata()[0] for line in axes.lines], means.to_numpy())


def test_a_fit_without_end_is_named():
    unfinished = panel(
        "diagonal", "large", {"lambda": 1e5, "outcome": "not_converged", "iterations": 1000}, np.eye(3, 2)
    )
    assert titles(class_gaussians(table(unfinished), "diagonal"))[3] == "(d) $λ =$ $10^{5}$, > 1000 iterations"


def test_a_panel_that_diverged_says_so_in_place_of_samples(tmp_path):
    lost = {"lambda": 100, "outcome": "diverged", "iterations": 7, "quantity": "A (definiteness)", "class": "dog"}
    diverged = pd.DataFrame(
        [{"dataset": "toy", "variant": "diagonal", "panel": "large", "x": np.nan, "y": np.nan, **lost}]
    )
    figure = class_gaussians(table(diverged), "diagonal")
    axes = figure.axes[3]
    assert titles(figure)[3] == "(d) $λ =$ $100$, diverged"
    assert [text.get_text() for text in axes.texts] == ["diverged: A (definiteness)\nof class dog\nat iteration 7"]
    assert not axes.collections
    save_figure(figure, tmp_path / "figure")


def test_samples_far_off_do_not_squash_the_others():
    far = panel(
        "diagonal", "large", {"lambda": 1e5, "outcome": "converged", "iterations": 9}, [[0, 0], [1e4, 0], [0, 0]]
    )
    frame = table(far)
    axes = class_gaussians(frame, "diagonal").axes
    near = frame[frame["panel"].isin(["images", "data"])]
    assert np.diff(axes[0].get_xlim())[0] < 4 * np.ptp(near["x"])
    assert [text.get_text() for text in axes[3].texts] == ["20 of 60 samples outside"]


def test_many_classes_have_no_legend(tmp_path):
    classes = tuple(f"class {index}" for index in range(30))
    figure = class_gaussians(table(classes=classes), "diagonal")
    assert not figure.legends
    assert not figure.axes[0].lines
    save_figure(figure, tmp_path / "figure")


def test_other_tables_are_refused():
    with pytest.raises(FigureError, match="variant full, received none with data"):
        class_gaussians(table(), "full")
    with pytest.raises(FigureError, match="column quantity is missing"):
        class_gaussians(table().drop(columns="quantity"), "diagonal")


def test_figures_are_always_the_same(tmp_path):
    for name in ("once", "again"):
        save_figure(class_gaussians(table(), "diagonal"), tmp_path / name)
    for suffix in ("png", "pdf"):
        assert (tmp_path / f"once.{suffix}").read_bytes() == (tmp_path / f"again.{suffix}").read_bytes()
