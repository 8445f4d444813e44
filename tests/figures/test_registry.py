import subprocess
import sys

import pandas as pd
import pytest
from matplotlib.figure import Figure

from nfpi.config.base import ConfigError
from nfpi.config.experiments import FIGURES, FigureSettings
from nfpi.figures import Drawn, FigureError, FigureInputs, draw_figure, register_figure, save_drawn
from nfpi.runtime.divergence import Diverged


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
    with pytest.raises(ConfigError, match=r"'right': expected new names of pictures, received right of 'line'"):
        register_figure("right", FigureSettings)(draw)


@pytest.mark.parametrize(
    "drawn",
    [Drawn({"left": Figure()}, table(1.0)), Drawn({"left": Figure(), "right": Figure()})],
    ids=["a picture is missing", "no table"],
)
def test_what_is_drawn_has_to_be_what_the_settings_promise(drawn):
    register_figure("line", Line)(lambda settings, inputs: drawn)
    with pytest.raises(FigureError, match="line"):
        draw_figure("line", Line(), FigureInputs({}))


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


def test_settings_of_figures_are_light():
    """The workflow imports them whenever it is planned."""
    code = "import sys, nfpi.config; print(*nfpi.config.experiments.FIGURES); print(*sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names, modules = answer.stdout.splitlines()
    assert "figure1" in names
    assert not {"matplotlib", "pandas", "scipy", "sklearn", "torch"} & set(modules.split())
