from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from nfpi.figures import Drawn, FigureInputs, save_drawn
from nfpi.figures.figure1 import (
    COLUMNS,
    EmbeddingFigure,
    compute_embedding,
    draw,
    draw_gaussians,
    embed_images,
)
from nfpi.priors import ClassStatistics, FixedPointConfig, GaussianPrior, fit_fixed_point

# ---- computation ----------------------------------------------------------------------------------------------

FIGURE = EmbeddingFigure(
    dataset="toy", images=45, perplexity=10, lambdas=[10, 1e4], lambdas_full=[1, 1e7], samples_per_class=30
)


@pytest.fixture(scope="module")
def embedding(images) -> pd.DataFrame:
    return compute_embedding(images, FIGURE)


def panel_of(embedding: pd.DataFrame, variant: str, name: str) -> pd.DataFrame:
    return embedding[(embedding["variant"] == variant) & (embedding["panel"] == name)]


def points(rows: pd.DataFrame) -> torch.Tensor:
    return torch.tensor(rows[["x", "y"]].to_numpy())


def statistics_of(embedding: pd.DataFrame, covariance: bool) -> ClassStatistics:
    """Of the embedded images."""
    rows = panel_of(embedding, "both", "images")
    labels = torch.tensor([int(name.removeprefix("class")) for name in rows["class"]])
    return ClassStatistics.from_latents(points(rows), labels, covariance=covariance)


def test_classes_that_differ_are_embedded_apart(images):
    embedded = embed_images(images.images, perplexity=10, seed=0)
    centres = np.stack([embedded[images.labels == label].mean(0) for label in range(3)])
    nearest = np.linalg.norm(embedded[:, None] - centres, axis=2).argmin(1)
    np.testing.assert_array_equal(nearest, images.labels)


def test_an_embedding_depends_on_its_seed_alone(images, embedding):
    pd.testing.assert_frame_equal(compute_embedding(images, FIGURE), embedding)
    other = compute_embedding(images, FIGURE.model_copy(update={"seed": 1}))
    assert not np.allclose(points(panel_of(other, "both", "images")), points(panel_of(embedding, "both", "images")))


def test_too_few_images_are_an_error(images):
    with pytest.raises(ValueError, match=r"perplexity.*10"):
        embed_images(images.images[:5], perplexity=10, seed=0)
    with pytest.raises(ValueError, match="at least 3"):
        compute_embedding(images, FIGURE.model_copy(update={"images": 2, "perplexity": 1.0}))


def test_a_class_of_two_images_has_no_covariance(images):
    labels = np.arange(len(images)) % 2
    labels[:2] = 2
    few = replace(images, labels=labels)
    with pytest.raises(ValueError, match=f"class {images.classes[2]}"):
        compute_embedding(few, FIGURE.model_copy(update={"images": len(images)}))


@pytest.mark.parametrize("variant", ["diagonal", "full"])
def test_panels_show_the_gaussians_of_the_data_and_of_the_fit(embedding, variant):
    """The same noise everywhere: from panel to panel a sample moves with the Gaussian of its class."""
    full = variant == "full"
    statistics = statistics_of(embedding, full)
    weight = FIGURE.lambdas_full[0] if full else FIGURE.lambdas[0]
    config = FixedPointConfig(weight=weight, update="exact" if full else "released", pooled_mean_gaps=False)
    fitted = fit_fixed_point(statistics, config)
    own = GaussianPrior(statistics.mean, None if full else statistics.variance, statistics.covariance)
    noise = []
    for prior, name in ((own, "data"), (fitted.prior, "small")):
        z = points(panel_of(embedding, variant, name)).unflatten(0, (3, 30))
        root = torch.linalg.cholesky(prior.covariance) if full else prior.variance.sqrt().diag_embed()
        noise.append(torch.linalg.solve_triangular(root, (z - prior.mean[:, None]).mT, upper=False).mT)
    torch.testing.assert_close(noise[0], noise[1])
    assert noise[0].std() == pytest.approx(1, abs=0.2)
    row = panel_of(embedding, variant, "small").iloc[0]
    assert (row["lambda"], row["iterations"], row["outcome"]) == (weight, fitted.iterations, "converged")


def test_a_fit_that_diverges_is_one_row_without_a_point(embedding):
    (row,) = panel_of(embedding, "full", "large").to_dict("records")
    assert (row["lambda"], row["outcome"]) == (1e7, "diverged")
    assert row["quantity"]
    assert row["class"] in ("class0", "class1", "class2")
    assert np.isnan(row["x"])
    assert np.isnan(row["y"])


# ---- drawing --------------------------------------------------------------------------------------------------


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


NEAR = np.random.default_rng(1).normal(size=(3, 2)) * 5


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
    return pd.concat(panels)[COLUMNS].astype({"iterations": "Int64"})


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes]


def cloud(axes):
    return np.asarray(axes.collections[0].get_offsets())


def test_four_panels_hold_all_points_on_the_same_axes():
    frame = table()
    figure = draw_gaussians(frame, "diagonal")
    assert len({(axes.get_xlim(), axes.get_ylim()) for axes in figure.axes}) == 1
    for axes, name in zip(figure.axes, ("images", "data", "small", "large"), strict=True):
        rows = frame[frame["panel"] == name]
        assert sorted(cloud(axes).tolist()) == sorted(rows[["x", "y"]].to_numpy().tolist())
        (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
        assert rows["x"].between(left, right).all()
        assert rows["y"].between(bottom, top).all()


def test_titles_say_how_areas_change():
    smaller = panel("diagonal", "large", {"lambda": 1e5, "outcome": "converged", "iterations": 9}, NEAR, spread=0.5)
    assert titles(draw_gaussians(table(smaller), "diagonal"))[3].endswith("area × 0.25")


def test_a_cluster_is_seen_within_its_mark_and_the_ellipse_it_comes_from():
    frame = table(panel("diagonal", "large", {"lambda": 1e5, "outcome": "converged", "iterations": 9}, NEAR + 7))
    figure = draw_gaussians(frame, "diagonal")
    assert [len(axes.patches) for axes in figure.axes] == [0, 0, 3, 3]
    before = frame[frame["panel"] == "data"].groupby("class")[["x", "y"]]
    for ellipse, (_, points) in zip(figure.axes[3].patches, before, strict=True):
        np.testing.assert_allclose(ellipse.center, points.mean())
        inside = ellipse.contains_points(figure.axes[3].transData.transform(points))
        assert inside.mean() > 0.7


def test_names_of_classes_are_no_formulas(tmp_path):
    lost = {"outcome": "diverged", "iterations": 7, "quantity": "mean", "class": "$10_$20", "lambda": 100}
    diverged = pd.DataFrame([{"dataset": "toy", "variant": "diagonal", "panel": "large", **lost}])
    names = ("$10_$20", "dog", "frog")
    figure = draw_gaussians(table(diverged, classes=names), "diagonal")
    assert figure.legends[0].get_texts()[0].get_text() == r"\$10_\$20"
    save_drawn(Drawn({"figure": figure}), tmp_path, "figure")


def test_the_large_marks_are_the_means_of_the_points():
    frame = table()
    axes = draw_gaussians(frame, "diagonal").axes[2]
    means = frame[frame["panel"] == "small"].groupby("class")[["x", "y"]].mean()
    np.testing.assert_allclose([line.get_xydata()[0] for line in axes.lines], means.to_numpy())


def test_a_panel_that_diverged_says_so_in_place_of_samples(tmp_path):
    lost = {"outcome": "diverged", "iterations": 7, "quantity": "A (not positive definite)", "class": "dog"}
    diverged = pd.DataFrame([{"dataset": "toy", "variant": "diagonal", "panel": "large", "lambda": 100, **lost}])
    figure = draw_gaussians(table(diverged), "diagonal")
    (text,) = figure.axes[3].texts
    assert all(part in text.get_text() for part in ("iteration 7", "class dog"))
    assert not figure.axes[3].collections
    save_drawn(Drawn({"figure": figure}), tmp_path, "figure")


def test_samples_far_off_do_not_squash_the_others():
    far = panel(
        "diagonal", "large", {"lambda": 1e5, "outcome": "converged", "iterations": 9}, [[0, 0], [1e4, 0], [0, 0]]
    )
    frame = table(far)
    axes = draw_gaussians(frame, "diagonal").axes
    near = frame[frame["panel"].isin(["images", "data"])]
    assert np.diff(axes[0].get_xlim())[0] < 4 * np.ptp(near["x"])
    assert [text.get_text() for text in axes[3].texts] == ["20 of 60 samples outside"]
    assert not axes[2].texts


def test_both_variants_and_the_points_are_made_from_images(make_image_set, tmp_path):
    inputs = FigureInputs({"train": sorted(make_image_set(tmp_path / "train", (1, 4, 4), per_class=12).iterdir())})
    settings = FIGURE.model_copy(update={"images": 30, "perplexity": 5.0})
    drawn = draw(settings, inputs)
    assert list(drawn.pictures) == ["figure1", "figure1_full"]
    save_drawn(drawn, tmp_path / "drawn", "figure1")
    assert len(list((tmp_path / "drawn").iterdir())) == 5  # two pictures in two formats, and a table
