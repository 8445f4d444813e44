import subprocess
import sys

import pandas as pd
import pytest
from matplotlib.figure import Figure

from nfpi.config.base import ConfigError, Settings
from nfpi.config.registry import Registry
from nfpi.config.settings import FIGURES, FigureSettings
from nfpi.figures import Drawn, FigureError, FigureInputs, draw_figure, register_figure, save_drawn
from nfpi.figures.figure2 import AugmentationFigure
from nfpi.figures.samples import SamplesFigure
from nfpi.results.recorded.predictions import read_predictions
from nfpi.runtime.divergence import Diverged, mark_diverged


class Line(FigureSettings):
    title = "a line"
    pictures = ("left", "right")
    has_table = True

    slope: float = 1.0


def table(slope: float) -> pd.DataFrame:
    return pd.DataFrame({"x": [0, 1], "y": [0, slope]})


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(FIGURES, "_variants", {name: FIGURES[name] for name in FIGURES})


def test_a_registered_figure_is_drawn_with_its_settings():
    @register_figure("line", Line)
    def draw(settings: Line, inputs: FigureInputs) -> Drawn:
        assert inputs.settings == {"colour": "blue"}
        return Drawn({"left": Figure(), "right": Figure()}, table(settings.slope))

    drawn = draw_figure("line", Line(slope=3.0), FigureInputs({}, {"colour": "blue"}))
    pd.testing.assert_frame_equal(drawn.table, table(3.0))
    assert FIGURES["line"].settings.title == "a line"
    with pytest.raises(ConfigError, match="line"):
        register_figure("line", Line)(draw)


@pytest.mark.parametrize(
    ("drawn", "message"),
    [
        (Drawn({"left": Figure()}, table(1.0)), "left, right .*, received left "),
        (Drawn({}, table(1.0)), "left, right .*, received none"),
        (Drawn({"left": Figure(), "right": Figure()}), "and a table, received left, right without"),
    ],
    ids=["a picture is missing", "no picture", "no table"],
)
def test_what_is_drawn_has_to_be_what_the_settings_promise(drawn, message):
    register_figure("line", Line)(lambda settings, inputs: drawn)
    with pytest.raises(FigureError, match=message):
        draw_figure("line", Line(), FigureInputs({}))


def test_settings_are_those_of_a_figure():
    for other in (Settings, []):
        with pytest.raises(TypeError, match="line"):
            register_figure("line", other)


def test_a_fit_that_diverged_is_said_in_every_file(tmp_path):
    def draw(settings: Line, inputs: FigureInputs) -> Drawn:
        raise Diverged(4, 1, "variance", 1e6)

    register_figure("line", Line)(draw)
    drawn = draw_figure("line", Line(), FigureInputs({}))
    for figure in drawn.pictures.values():
        assert "diverged at iteration 4: variance of class 1" in figure.texts[0].get_text()
    save_drawn(drawn, tmp_path, "line")
    names = {"left.png", "left.pdf", "right.png", "right.pdf", "line.csv"}
    assert {file.name for file in tmp_path.iterdir()} == names


def test_predictions_of_a_run_that_diverged_are_drawn_as_a_notice(tmp_path):
    mark_diverged([tmp_path / "metrics.json", tmp_path / "predictions.npz"], Diverged(4, 1, "variance", 1e6))

    def draw(settings: Line, inputs: FigureInputs) -> Drawn:
        read_predictions(inputs.file("predictions"))
        raise AssertionError("expected no predictions")

    register_figure("line", Line)(draw)
    drawn = draw_figure("line", Line(), FigureInputs({"predictions": [tmp_path / "predictions.npz"]}))
    assert "diverged at iteration 4" in drawn.pictures["left"].texts[0].get_text()


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("samples", SamplesFigure.model_validate({"dataset": "toy", "lambda": 10})),
        ("figure2", AugmentationFigure.model_validate({"dataset": "toy", "lambda": 10, "classes": ["class0"]})),
    ],
    ids=["samples", "figure2"],
)
def test_a_flow_whose_fit_diverged_is_drawn_as_a_notice(name, settings, diverged_files, train_files):
    drawn = draw_figure(name, settings, FigureInputs({"model": diverged_files, "train": train_files}, {"nfa": {}}))
    assert "diverged at iteration 4" in drawn.pictures[name].texts[0].get_text()


def test_every_figure_says_what_it_is():
    assert isinstance(FIGURES, Registry)
    for name in FIGURES:
        settings = FIGURES[name].settings
        assert settings.title
        assert settings.caption
        assert settings.picture_names(name)
        assert callable(FIGURES[name].build)


def test_settings_of_figures_are_light():
    """The workflow imports them whenever it is planned."""
    code = "import sys, nfpi.config; print(*nfpi.config.settings.FIGURES); print(*sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names, modules = answer.stdout.splitlines()
    assert "figure1" in names
    assert not {"matplotlib", "pandas", "scipy", "sklearn", "torch"} & set(modules.split())
