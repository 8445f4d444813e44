"""The stage that draws figures, each from the files of small runs that its settings name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nfpi.config.flows import NfaConfig
from nfpi.config.priors import FixedPointSettings
from nfpi.config.settings import FIGURES, FigureSettings
from nfpi.data.writer import write_image_set
from nfpi.runs import COMMON_SPLITS, Layout, Run

from .conftest import SmallRun, call, format_options, list_files, read_error_line

FIGURE: dict[str, dict[str, Any]] = {
    "accuracy_against_weight": {},
    "following": {"table": "table2"},
    "decisions": {"dataset": "digits", "lambdas": [100]},
    "figure1": {"dataset": "digits", "images": 60, "perplexity": 5, "samples_per_class": 5, "lambdas": [1, 10]},
    "figure2": {"dataset": "digits", "lambda": 100, "classes": ["0", "2"]},
    "samples": {"dataset": "digits", "lambda": 100, "temperatures": [0.5, 1.0]},
    "samples_by_weight": {"dataset": "digits", "lambdas": [100], "refits": [None]},
    "residuals": {"dataset": "digits", "lambdas": [100, 1e6]},
    "convergence_map": {"dataset": "digits", "lambdas": [1, 1e8]},
}


@dataclass(frozen=True)
class Preset:
    """What figures ask of the settings of a preset."""

    seeds = (3,)
    nfa = NfaConfig(axes=5)

    def run(self, dataset: str, flow: str, prior: str, weight: float, seed: int, refit: str | None = None) -> Run:
        return Run(dataset=dataset, flow=flow, prior=prior, weight=weight, seed=seed)

    def for_dataset(self, dataset: str) -> Preset:
        return self

    def splits_of(self, dataset: str, seed: int) -> str:
        return COMMON_SPLITS

    def fixed_point_settings(self, where: str, prior: str) -> FixedPointSettings:
        return FixedPointSettings()


def settings_of(name: str, **changes: object) -> FigureSettings:
    settings: FigureSettings = FIGURES[name].settings.model_validate(FIGURE[name] | changes)
    return settings


def draw(
    name: str, run: SmallRun, output: Path, table: Path | None = None, data: Path | None = None, **changes: object
) -> int:
    """Draw a figure as the workflow does; `table` and `data` stand in for those of the run."""
    settings = settings_of(name, **changes)
    files = settings.files(Preset(), Layout(run.root))  # type: ignore[arg-type]
    if table is not None:
        files["table"] = [str(table)]
    if data is not None:
        files["train"] = [str(data / Path(file).name) for file in files["train"]]
    reads = {key: value.model_dump(mode="json") for key, value in settings.reads(Preset()).items()}  # type: ignore[arg-type]
    options = {"figure": FIGURE[name] | changes, "files": files, "reads": reads, "output": output}
    return call("figure", *format_options(name=name, **options))


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in list_files(folder)}


@pytest.mark.parametrize("name", FIGURE)
def test_a_figure_leaves_what_its_settings_promise(name, complete_run, diverged_run, tables, tmp_path):
    table = tables / "table2.csv" if "table" in settings_of(name).files(Preset(), Layout(tmp_path)) else None  # type: ignore[arg-type]
    assert draw(name, complete_run, tmp_path / "folder", table) == 0
    drawn = contents(tmp_path / "folder")
    assert drawn.keys() == {*settings_of(name).output_names(name).values(), f"{name}.manifest.json"}
    assert len(set(drawn.values())) == len(drawn)


@pytest.mark.parametrize("name", ["samples", "figure2"])
def test_a_flow_whose_fit_diverged_is_drawn_as_a_notice(name, complete_run, diverged_run, tmp_path):
    assert draw(name, diverged_run, tmp_path / "diverged", **{"lambda": 1e6}) == 0
    assert draw(name, complete_run, tmp_path / "fine") == 0
    notice, fine = contents(tmp_path / "diverged"), contents(tmp_path / "fine")
    assert notice.keys() == fine.keys()
    assert all(notice[file] != fine[file] for file in fine)


def test_what_a_killed_process_left_is_removed(complete_run, diverged_run, tmp_path):
    for name in ("residuals.png", "residuals.pdf"):
        (tmp_path / f".{name}.0123456789abcdef.tmp").touch()
    assert draw("residuals", complete_run, tmp_path) == 0
    assert contents(tmp_path).keys() == {"residuals.png", "residuals.pdf", "residuals.manifest.json"}


@pytest.mark.parametrize("name", ["samples", "figure2"])
def test_images_are_always_the_same(name, complete_run, tmp_path):
    for output in ("once", "again"):
        assert draw(name, complete_run, tmp_path / output) == 0
    assert contents(tmp_path / "once") == contents(tmp_path / "again")


# ---- faults are one line, and leave nothing -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("figure1", {"images": 60, "perplexity": 60}, "perplexity"),
        ("figure2", {"classes": ["class7"]}, "received 'class7'"),
        ("samples", {"lambda": 7}, "lambda=7/seed=3/model/config.json"),
        ("convergence_map", {"dataset": "missing"}, "missing/mef/initial/data/seed=3"),
    ],
)
def test_a_figure_that_cannot_be_drawn(name, changes, message, complete_run, tmp_path, capsys):
    assert draw(name, complete_run, tmp_path / "new", **changes) == 1
    assert message in read_error_line(capsys)
    assert not (tmp_path / "new").exists()


def test_a_table_without_accuracies_is_refused(complete_run, tmp_path, capsys):
    (tmp_path / "empty.csv").write_text("x,y\n")
    assert draw("accuracy_against_weight", complete_run, tmp_path / "new", tmp_path / "empty.csv") == 1
    assert "experiment" in read_error_line(capsys)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("names", [["a", "b", "c"], ["0", "1"]], ids=["other names", "fewer"])
def test_images_of_other_classes_are_refused(complete_run, tmp_path, names, capsys):
    images = np.zeros((10, 8, 8, 1), np.uint8)
    write_image_set(tmp_path / "train", images, np.arange(10) % 2, names, name="other", flip=False)
    assert draw("figure2", complete_run, tmp_path / "new", data=tmp_path / "train") == 1
    assert "classes" in read_error_line(capsys)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "figure1", "files": {}}, "train"),
        ({"name": "residuals", "files": {"iterations": ["a.csv"]}}, "a.csv"),
        ({"name": "accuracy_against_weight", "files": {"table": ["a.csv", "b.csv"]}}, "table"),
        ({"name": "figure1", "files": {}, "figure": {"dataset": "d", "colour": "red"}}, "'colour'"),
        ({"name": "figure7", "files": {}}, "'figure7'"),
    ],
)
def test_a_figure_takes_the_files_and_settings_that_it_knows(options, message, tmp_path, capsys):
    figure = {} if options["name"] == "figure7" else FIGURE[options["name"]]
    options = {"figure": figure, "reads": {"prior": {}}, "output": tmp_path / "new"} | options
    assert call("figure", *format_options(**options)) == 1
    assert message in read_error_line(capsys)
    assert not (tmp_path / "new").exists()
