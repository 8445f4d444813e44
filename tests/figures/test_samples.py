import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from nfpi.data import autoencoder
from nfpi.figures import FigureInputs, image_grid
from nfpi.figures.samples import SamplesFigure, draw, draw_samples, sample_grid
from nfpi.figures.style import render_figure
from nfpi.flows.dequantization import quantize
from nfpi.model import ClassConditionalFlow


def sample(
    model: ClassConditionalFlow, temperatures: Sequence[float] = (1e-6, 0.5, 1.0), classes: int = 10, noises: int = 1
) -> np.ndarray:
    return sample_grid(model, temperatures, classes, noises)


@pytest.fixture(scope="module")
def means(model: ClassConditionalFlow) -> torch.Tensor:
    """f⁻¹ of the means of the classes."""
    with torch.no_grad():
        return model.flow.inverse(model.prior.mean.float())[0]


def test_samples_at_no_temperature_are_those_of_the_means(model, means):
    grid = sample(model)
    assert grid.shape == (3, 3, 4, 4, 1)
    expected = quantize(means).permute(0, 2, 3, 1).numpy()
    assert np.abs(grid[0].astype(int) - expected).max() <= 1
    assert (grid[1] != grid[2]).any()


def test_only_the_first_classes_are_drawn_where_so_many_are_asked_for(model):
    first = sample(model, classes=2)
    np.testing.assert_array_equal(first[0], sample(model)[0, :2])


def test_samples_depend_on_the_seed_of_the_run(model):
    other = dataclasses.replace(model, config={**model.config, "seed": 4})
    assert (sample(model)[2] != sample(other)[2]).any()


def test_every_image_of_a_block_has_a_noise_of_its_own_and_all_blocks_have_the_same(model):
    grid = sample(model, noises=2, temperatures=[0.5, 1.0, 0.5])
    assert grid.shape == (6, 3, 4, 4, 1)
    np.testing.assert_array_equal(grid[:2], grid[4:])
    assert (grid[2] != grid[3]).any((1, 2, 3)).all()


def test_latents_are_decoded(model, means, monkeypatch):
    """Each latent becomes the picture of its decoder, in its place."""
    data = {**model.data, "dtype": "float16", "extra": {"spread": np.ones((1, 4, 4)).tolist()}}
    of_latents = dataclasses.replace(model, config={**model.config, "data": data})

    def load_decoder(known, device):
        assert known == data
        return lambda z: (z[:, :1].float().repeat_interleave(2, 2).repeat_interleave(2, 3) > 0).to(torch.uint8) * 255

    monkeypatch.setattr(autoencoder, "load_decoder", load_decoder)
    monkeypatch.setattr(image_grid, "_BATCH_SIZE", 2)
    grid = sample(of_latents)
    assert grid.shape == (3, 3, 8, 8, 1)
    assert grid.dtype == np.uint8
    np.testing.assert_array_equal(grid[0, :, ::2, ::2], 255 * (means.permute(0, 2, 3, 1).numpy() > 0))


@pytest.mark.parametrize("noises", [1, 2])
def test_names_of_classes_are_no_formulas(noises):
    figure = draw_samples(np.zeros((noises, 1, 8, 8, 3), np.uint8), [1.0], ["$10_$20"], noises)
    assert render_figure(figure, "png")


def test_a_model_is_read_and_its_classes_are_named(model_files):
    settings = SamplesFigure.model_validate({"dataset": "toy", "temperatures": [1e-6, 0.5, 1.0], "noises": 1})
    (axes,) = draw(settings, FigureInputs({"model": model_files})).pictures["samples"].axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["class0", "class1", "class2"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1e-06", "0.5", "1"]
