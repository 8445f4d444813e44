from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

import nfpi.analysis
from nfpi import figures
from nfpi.analysis import augmentation_grid, convergence_table, embed_images, embedding_table, sample_grid
from nfpi.config import AugmentationFigure, ConvergenceFigure, EmbeddingFigure, NfaConfig, SamplesFigure
from nfpi.data import DataError, ImageSet
from nfpi.data.domain import LatentDomain, PixelDomain
from nfpi.flows import MatrixExponentialFlow
from nfpi.flows.dequantization import quantize
from nfpi.priors import ClassStatistics, FixedPointConfig, GaussianPrior, fit_fixed_point

CPU = torch.device("cpu")
SHAPE = (1, 4, 4)


# ---- embedding ------------------------------------------------------------------------------------------------

FIGURE = EmbeddingFigure(
    dataset="toy", images=45, perplexity=10, lambdas=[10, 1e4], lambdas_full=[1, 1e7], samples_per_class=30
)


@pytest.fixture(scope="module")
def images(make_images) -> ImageSet:
    return make_images(SHAPE, classes=3, per_class=20)


@pytest.fixture(scope="module")
def table(images) -> pd.DataFrame:
    return embedding_table(images, FIGURE)


def panel(table: pd.DataFrame, variant: str, name: str) -> pd.DataFrame:
    return table[(table["variant"] == variant) & (table["panel"] == name)]


def points(rows: pd.DataFrame) -> torch.Tensor:
    return torch.tensor(rows[["x", "y"]].to_numpy())


def statistics_of(table: pd.DataFrame, covariance: bool) -> ClassStatistics:
    """Of the embedded images."""
    rows = panel(table, "both", "images")
    labels = torch.tensor([int(name.removeprefix("class")) for name in rows["class"]])
    return ClassStatistics.from_latents(points(rows), labels, covariance=covariance)


def test_classes_that_differ_are_embedded_apart(images):
    embedded = embed_images(images.images, perplexity=10, seed=0)
    centres = np.stack([embedded[images.labels == label].mean(0) for label in range(3)])
    nearest = np.linalg.norm(embedded[:, None] - centres, axis=2).argmin(1)
    np.testing.assert_array_equal(nearest, images.labels)


def test_an_embedding_depends_on_its_seed_alone(images, table):
    pd.testing.assert_frame_equal(embedding_table(images, FIGURE), table)
    other = embedding_table(images, FIGURE.model_copy(update={"seed": 1}))
    assert not np.allclose(points(panel(other, "both", "images")), points(panel(table, "both", "images")))


def test_too_few_images_are_an_error(images):
    with pytest.raises(ValueError, match="perplexity: expected less than the 5 images, received 10"):
        embedding_table(images, FIGURE.model_copy(update={"images": 5}))
    with pytest.raises(ValueError, match="its variance needs at least 2 samples"):
        embedding_table(images, FIGURE.model_copy(update={"images": 2, "perplexity": 1.0}))


def test_an_embedding_has_what_its_figures_need(table):
    assert list(table.columns) == list(figures.EMBEDDING_COLUMNS)
    assert len(panel(table, "both", "images")) == 45
    for variant in ("diagonal", "full"):
        assert len(panel(table, variant, "data")) == 3 * 30
        figures.class_gaussians(table, variant)


@pytest.mark.parametrize("variant", ["diagonal", "full"])
def test_panels_show_the_gaussians_of_the_data_and_of_the_fit(table, variant):
    """The same noise everywhere: from panel to panel a sample moves with the Gaussian of its class."""
    full = variant == "full"
    statistics = statistics_of(table, full)
    weight = FIGURE.lambdas_full[0] if full else FIGURE.lambdas[0]
    config = FixedPointConfig(weight, update="exact" if full else "released", pooled_mean_gaps=False)
    fitted = fit_fixed_point(statistics, config)
    own = GaussianPrior(statistics.mean, None if full else statistics.variance, statistics.covariance)
    noise = []
    for prior, name in ((own, "data"), (fitted.prior, "small")):
        z = points(panel(table, variant, name)).unflatten(0, (3, 30))
        root = torch.linalg.cholesky(prior.covariance) if full else prior.variance.sqrt().diag_embed()
        noise.append(torch.linalg.solve_triangular(root, (z - prior.mean[:, None]).mT, upper=False).mT)
    torch.testing.assert_close(noise[0], noise[1])
    assert noise[0].std() == pytest.approx(1, abs=0.2)
    row = panel(table, variant, "small").iloc[0]
    assert (row["lambda"], row["iterations"], row["outcome"]) == (weight, fitted.iterations, "converged")


def test_a_fit_that_diverges_is_one_row_without_a_point(table):
    (row,) = panel(table, "full", "large").to_dict("records")
    assert (row["lambda"], row["outcome"]) == (1e7, "diverged")
    assert row["quantity"]
    assert row["class"] in ("class0", "class1", "class2")
    assert np.isnan(row["x"])
    assert np.isnan(row["y"])


# ---- convergence ----------------------------------------------------------------------------------------------

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
def fits(statistics, initial) -> pd.DataFrame:
    return pd.DataFrame(convergence_table(statistics, initial, MAP), columns=list(figures.CONVERGENCE_COLUMNS))


def test_every_combination_is_tried_once(fits):
    assert list(fits.columns) == list(figures.CONVERGENCE_COLUMNS)
    keys = ["fitted", "update", "scale", "lambda"]
    assert len(fits) == len(fits[keys].drop_duplicates()) == 3 * 2 * 2 * 3
    assert set(fits["outcome"]) == {"converged", "diverged"}
    figures.convergence_map(fits)


@pytest.mark.parametrize(
    ("fitted", "mean", "variance"), [("both", True, True), ("mean", True, False), ("variance", False, True)]
)
def test_outcomes_are_those_of_the_fits(fits, statistics, initial, fitted, mean, variance):
    start = initial if variance else GaussianPrior(initial.mean, torch.ones_like(initial.mean))
    converged = fits[(fits["fitted"] == fitted) & (fits["outcome"] == "converged")]
    assert set(converged["lambda"]) >= {1, 30}
    for row in converged.to_dict("records"):
        config = FixedPointConfig(
            row["lambda"], update=row["update"], scale=row["scale"], fit_mean=mean, fit_variance=variance
        )
        result = fit_fixed_point(statistics, config, start)
        assert result.converged
        assert result.iterations == row["iterations"]


def test_means_under_identity_have_one_update_only(fits):
    """With Σ = I the released update and the exact one are the same."""
    released, exact = (
        fits[(fits["fitted"] == "mean") & (fits["update"] == update)].drop(columns="update").reset_index(drop=True)
        for update in ("released", "exact")
    )
    pd.testing.assert_frame_equal(released, exact)


def test_a_divergence_is_told_with_what_when_and_whose(fits):
    exact = fits[(fits["fitted"] == "both") & (fits["update"] == "exact") & (fits["lambda"] == 1e6)]
    assert (exact["outcome"] == "diverged").all()
    quantities = ["A (definiteness)", "repulsion kernel", "divergences (rounding)", "variance", "mean"]
    assert exact["quantity"].isin(quantities).all()
    assert exact["class"].isin(list("0123")).all()
    assert (exact["iterations"] >= 1).all()


# ---- images ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def flow(images) -> MatrixExponentialFlow:
    torch.manual_seed(0)
    flow = MatrixExponentialFlow(SHAPE, [1], [1], [8])
    flow.initialize(PixelDomain(0.05).to_flow(pixels_of(images), torch.Generator().manual_seed(0)))
    return flow


@pytest.fixture(scope="module")
def prior(flow, images) -> GaussianPrior:
    with torch.no_grad():
        z = flow(PixelDomain(0.0).to_flow(pixels_of(images), None))[0].flatten(1)
    labels = torch.from_numpy(images.labels)
    means = torch.stack([z[labels == label].mean(0) for label in range(3)])
    return GaussianPrior(means.double(), torch.full_like(means, 0.01, dtype=torch.float64))


def pixels_of(images: ImageSet) -> torch.Tensor:
    return torch.from_numpy(images.images).permute(0, 3, 1, 2)


def draw(flow, prior, domain=None, **changes) -> np.ndarray:
    figure = SamplesFigure(**{"dataset": "toy", "weight": 1, "temperatures": [1e-6, 0.5, 1.0], **changes})
    domain = domain or PixelDomain(0.05)
    return sample_grid(flow, prior, figure, seed=0, data={}, domain=domain, device=CPU)


def test_samples_at_no_temperature_are_those_of_the_means(flow, prior):
    grid = draw(flow, prior)
    assert grid.shape == (3, 3, 4, 4, 1)
    with torch.no_grad():
        expected = quantize(flow.inverse(prior.mean.float())[0]).permute(0, 2, 3, 1).numpy()
    assert np.abs(grid[0].astype(int) - expected).max() <= 1
    assert (grid[1] != grid[2]).any()


def test_only_the_first_classes_are_drawn_where_so_many_are_asked_for(flow, prior):
    np.testing.assert_array_equal(draw(flow, prior, classes=2)[0], draw(flow, prior)[0, :2])


def augment(flow, images, classes, nfa=None, **changes):
    figure = AugmentationFigure(dataset="toy", weight=1, classes=classes, **changes)
    settings = {"seed": 0, "data": {}, "domain": PixelDomain(0.05), "device": CPU}
    return augmentation_grid(flow, images, figure, nfa or NfaConfig(axes=4, strength=1.0), **settings)


def test_originals_come_first_and_are_of_the_classes_asked_for(flow, images):
    grid, names = augment(flow, images, ["class2", "0"], images_per_class=2, variants=4)
    assert grid.shape == (4, 5, 4, 4, 1)
    assert names == ["class2", "class2", "class0", "class0"]
    for row, name in zip(grid, names, strict=True):
        same = (images.images == row[0]).all((1, 2, 3))
        assert images.labels[same].tolist() == [int(name[-1])]
        assert (row[1:] != row[0]).any((1, 2, 3)).all()


def test_no_strength_gives_the_originals_back(flow, images):
    grid, _ = augment(flow, images, ["class1"], NfaConfig(axes=4, strength=0.0))
    assert np.abs(grid[:, 1:].astype(int) - grid[:, :1]).max() <= 1


@pytest.mark.parametrize("name", ["classs1", "3"])
def test_unknown_classes_are_named(flow, images, name):
    with pytest.raises(DataError, match=f"the 3 classes of toy, received '{name}'"):
        augment(flow, images, [name])
    with pytest.raises(DataError, match="expected 21 images, received 20"):
        augment(flow, images, ["0"], images_per_class=21)


def test_latents_are_decoded(flow, prior, monkeypatch):
    """Each latent becomes the picture of its decoder, in its place."""

    def load_decoder(data, device):
        assert data == {}
        return lambda z: (z[:, :1].float().repeat_interleave(2, 2).repeat_interleave(2, 3) > 0).to(torch.uint8) * 255

    monkeypatch.setattr(nfpi.analysis, "load_decoder", load_decoder)
    monkeypatch.setattr(nfpi.analysis, "_DECODED_AT_A_TIME", 2)
    grid = draw(flow, prior, LatentDomain(0.0, torch.ones(SHAPE)))
    assert grid.shape == (3, 3, 8, 8, 1)
    assert grid.dtype == np.uint8
    with torch.no_grad():
        expected = flow.inverse(prior.mean.float())[0].permute(0, 2, 3, 1).numpy() > 0
    np.testing.assert_array_equal(grid[0, :, ::2, ::2], 255 * expected)
