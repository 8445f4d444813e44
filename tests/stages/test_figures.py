"""The stage that draws figures, each from the files of small runs that its settings name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nfpi.config.experiments import FIGURES, FigureSettings
from nfpi.config.resolution import resolve
from nfpi.data.writer import write_image_set
from nfpi.runs import Layout

from .conftest import ROOT, SmallRun, call, format_options, list_files, read_error_line

FIGURE: dict[str, dict[str, Any]] = {
    "accuracy_against_weight": {},
    "following": {"table": "table2"},
    "frontier": {"table": "table2"},
    "decisions": {"dataset": "digits", "lambdas": [100]},
    "figure1": {"dataset": "digits", "images": 60, "perplexity": 5, "samples_per_class": 5, "lambdas": [1, 10]},
    "figure2": {"dataset": "digits", "lambda": 100, "classes": ["0", "2"]},
    "samples": {"dataset": "digits", "lambda": 100, "temperatures": [0.5, 1.0]},
    "samples_by_weight": {"dataset": "digits", "lambdas": [100], "refits": [None]},
    "residuals": {"dataset": "digits", "lambdas": [100, 1e6]},
    "convergence_map": {"dataset": "digits", "lambdas": [1, 1e8]},
}


PRESET = resolve(ROOT / "config.yaml", ROOT / "presets", {"preset": "demo", "seeds": [3], "nfa": {"axes": 5}}).config


def settings_of(name: str, **changes: object) -> FigureSettings:
    settings: FigureSettings = FIGURES[name].settings.model_validate(FIGURE[name] | changes)
    return settings


def draw(
    name: str, run: SmallRun, output: Path, table: Path | None = None, data: Path | None = None, **changes: object
) -> int:
    """Draw a figure as the workflow does; `table` and `data` stand in for those of the run."""
    settings = settings_of(name, **changes)
    files = settings.files(PRESET, Layout(run.root))
    if table is not None:
        files["table"] = [str(table)]
    if data is not None:
        files["train"] = [str(data / Path(file).name) for file in files["train"]]
    reads = {key: value.model_dump(mode="json") for key, value in settings.reads(PRESET).items()}
    options = {"figure": FIGURE[name] | changes, "files": files, "reads": reads, "output": output}
    return call("figure", *format_options(name=name, **options))


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in list_files(folder)}


@pytest.mark.parametrize("name", list(FIGURES))
def test_a_figure_leaves_what_its_settings_promise(name, complete_run, diverged_run, tables, tmp_path):
    table = tables / "table2.csv" if "table" in settings_of(name).files(PRESET, Layout(tmp_path)) else None
    assert draw(name, complete_run, tmp_path / "folder", table) == 0
    drawn = contents(tmp_path / "folder")
    assert drawn.keys() == {*settings_of(name).output_names(name).values(), f"{name}.manifest.json"}
    assert len(set(drawn.values())) == len(drawn)


def test_a_flow_whose_fit_diverged_is_drawn_as_a_notice(complete_run, diverged_run, tmp_path):
    assert draw("samples", diverged_run, tmp_path / "diverged", **{"lambda": 1e6}) == 0
    assert draw("samples", complete_run, tmp_path / "fine") == 0
    notice, fine = contents(tmp_path / "diverged"), contents(tmp_path / "fine")
    assert notice.keys() == fine.keys()
    assert all(notice[file] != fine[file] for file in fine)


def test_what_a_killed_process_left_is_removed(complete_run, diverged_run, tmp_path):
    for name in ("residuals.png", "residuals.pdf"):
        (tmp_path / f".{name}.0123456789abcdef.tmp").touch()
    assert draw("residuals", complete_run, tmp_path) == 0
    assert contents(tmp_path).keys() == {"residuals.png", "residuals.pdf", "residuals.manifest.json"}


def test_images_are_always_the_same(complete_run, tmp_path):
    for output in ("once", "again"):
        assert draw("figure2", complete_run, tmp_path / output) == 0
    assert contents(tmp_path / "once") == contents(tmp_path / "again")


# ---- faults are one line, and leave nothing -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("figure1", {"images": 60, "perplexity": 60}, "perplexity"),
        ("figure2", {"classes": ["class7"]}, "received 'class7'"),
        ("samples", {"lambda": 7}, "lambda=7/seed=3/model/config.json"),
    ],
)
def test_a_figure_that_cannot_be_drawn(name, changes, message, complete_run, tmp_path, capsys):
    assert draw(name, complete_run, tmp_path / "new", **changes) == 1
    assert message in read_error_line(capsys)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("names", [["a", "b", "c"], ["0", "1"]], ids=["other names", "fewer"])
def test_images_of_other_classes_are_refused(complete_run, tmp_path, names, capsys):
    images = np.zeros((10, 8, 8, 1), np.uint8)
    write_image_set(tmp_path / "train", images, np.arange(10) % 2, names, name="other", flip=False)
    assert draw("figure2", complete_run, tmp_path / "new", data=tmp_path / "train") == 1
    assert "classes" in read_error_line(capsys)
    assert not (tmp_path / "new").exists()


def test_a_figure_takes_the_settings_that_it_knows(tmp_path, capsys):
    options = {"figure": {"dataset": "d", "colour": "red"}, "files": {}, "reads": {}, "output": tmp_path / "new"}
    assert call("figure", *format_options(name="figure1", **options)) == 1
    assert "'colour'" in read_error_line(capsys)
    assert not (tmp_path / "new").exists()
