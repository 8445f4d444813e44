"""Samples of several flows, a row each."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from nfpi.figures import FigureInputs
from nfpi.figures.samples import sample_grid
from nfpi.figures.samples_by_weight import SamplesByWeightFigure, draw
from nfpi.runtime.divergence import Diverged, mark_diverged


@pytest.fixture
def inputs(model, tmp_path, train_files) -> FigureInputs:
    """Two models, whose seeds differ, and images."""
    folders = [tmp_path / name for name in ("plain", "refitted")]
    for seed, folder in enumerate(folders):
        dataclasses.replace(model, config={**model.config, "seed": seed}).save_pretrained(folder)
    models = [folder / name for folder in folders for name in ("config.json", "model.safetensors")]
    return FigureInputs({"models": models, "test": train_files})


def test_every_row_shows_its_flow(model, inputs, images):
    settings = SamplesByWeightFigure(dataset="toy", lambdas=[1e4], classes=2)
    (axes,) = draw(settings, inputs).pictures["samples_by_weight"].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["test images", "λ = 10⁴", "λ = 10⁴, refit"]
    (image,) = axes.images
    times = 256 // 4
    real = images.images[np.flatnonzero(images.labels == 0)[0]]
    shown = np.asarray(image.get_array())[: 4 * times : times, : 4 * times : times]
    np.testing.assert_array_equal(shown, np.broadcast_to(real, (4, 4, 3)))
    for seed, middle in enumerate(axes.get_yticks()[1:]):
        other = dataclasses.replace(model, config={**model.config, "seed": seed})
        expected = sample_grid(other, [1.0], 2, 5).swapaxes(0, 1).reshape(10, 4, 4, 1)
        top = round(middle - times * 2)
        for column, place in enumerate(axes.get_xticks()):
            left = round(place - times * 2)
            shown = np.asarray(image.get_array())[top : top + 4 * times : times, left : left + 4 * times : times]
            np.testing.assert_array_equal(shown, np.broadcast_to(expected[column], (4, 4, 3)))


def test_the_latents_of_each_weight_have_a_panel(inputs):
    settings = SamplesByWeightFigure(dataset="toy", lambdas=[0, 1e4], refits=[None], images=40)
    panels = draw(settings, inputs).pictures["latents_by_weight"].axes
    assert [axes.get_title() for axes in panels] == ["λ = 0", "λ = 10⁴"]
    assert len(panels[1].collections[0].get_offsets()) == 40


def test_a_weight_whose_fit_diverged_has_no_row(inputs):
    folder = inputs.files["models"][0].parent
    mark_diverged([folder / "config.json"], Diverged(4, 1, "variance", 1e4))
    settings = SamplesByWeightFigure(dataset="toy", lambdas=[1e4, 3], refits=[None], classes=2, images=40)
    pictures = draw(settings, inputs).pictures
    (axes,) = pictures["samples_by_weight"].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["test images", "λ = 3"]
    assert [panel.get_title() for panel in pictures["latents_by_weight"].axes] == ["λ = 3"]
