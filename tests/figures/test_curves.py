from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nfpi.figures import FigureError, draw_curves, write_curves
from nfpi.figures.curves import CURVES, find_logs
from nfpi.results.recorded.csv_files import write_log
from nfpi.runtime.divergence import Diverged, TrainingDiverged, mark_diverged

FLOW = "digits/mef/fpi/lambda=10000/seed=0"


def rows(epochs: int = 4, **changes: object) -> list[dict[str, object]]:
    """The log of a flow whose first epoch is that of an initial state."""
    return [
        {
            "epoch": epoch,
            "train_bits_per_dim": 7.0 - epoch,
            "prior_loss": None,
            "validation_bits_per_dim": 7.5 - epoch if epoch % 2 == 0 else None,
            "validation_nf_acc": 90.0 + epoch if epoch % 2 == 0 else None,
            "seconds": None if epoch == 1 else 1.0,
            **changes,
        }
        for epoch in range(1, 1 + epochs)
    ]


def curves(figure) -> dict[str, dict[str, list[list[float]]]]:
    """Points of every line, by its panel and its label."""
    return {
        axes.get_ylabel(): {line.get_label(): line.get_xydata().tolist() for line in axes.lines} for axes in figure.axes
    }


def frame(log: list[dict[str, object]]) -> pd.DataFrame:
    return pd.DataFrame(log).astype(float)


def test_losses_and_accuracy_are_against_the_epoch_where_they_are_known():
    assert curves(draw_curves(frame(rows()))) == {
        "Loss (bits/dim)": {"training": [[1, 6], [2, 5], [3, 4], [4, 3]], "validation": [[2, 5.5], [4, 3.5]]},
        "NF-Acc (%)": {"validation": [[2, 92], [4, 94]]},
    }


def test_learned_gaussians_and_classifiers_have_their_losses():
    assert len(curves(draw_curves(frame(rows(prior_loss=5.0))))) == 3
    log = pd.DataFrame({"epoch": [1, 2], "train_loss": [2.0, 1.0]})
    assert list(curves(draw_curves(log)).values()) == [{"training": [[1, 2], [2, 1]]}]


@pytest.mark.parametrize(("shared", "ground"), [(1, [0.5, 1.5]), (0, None)])
def test_epochs_of_the_initial_state_are_on_a_ground_of_their_own(shared, ground):
    log = frame(rows())
    log["seconds"] = [np.nan] * shared + [1.0] * (4 - shared)
    figure = draw_curves(log)
    for axes in figure.axes:
        assert [[patch.get_x(), patch.get_x() + patch.get_width()] for patch in axes.patches] == (
            [ground] if ground else []
        )


def test_a_log_without_epochs_or_values_is_refused():
    for log in (frame(rows())[:0], frame(rows())[["epoch"]]):
        with pytest.raises(FigureError, match="values"):
            draw_curves(log)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    write_log(tmp_path / "digits/mef/initial/data/seed=0/log.csv", rows(1))
    write_log(tmp_path / FLOW / "log.csv", rows())
    write_log(tmp_path / FLOW / "resnet18/temperature=1/log.csv", [{"epoch": 1, "train_loss": 2.0}])
    return tmp_path


def test_every_run_has_curves_beside_its_log(results):
    pictures = [results / FLOW / CURVES, results / FLOW / "resnet18/temperature=1" / CURVES]
    assert write_curves(results) == pictures
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)
    assert [log.with_name(CURVES) for log in find_logs(results)] == pictures


@pytest.mark.parametrize("later", ["log.csv", "metrics.json"])  # of a training that diverged
def test_only_curves_older_than_their_log_or_a_divergence_are_drawn_again(results, later):
    write_curves(results)
    assert write_curves(results) == []
    path, time = results / FLOW / later, (results / FLOW / CURVES).stat().st_mtime + 1
    if later == "metrics.json":
        mark_diverged([path], TrainingDiverged("not finite at step 40", 40, "loss"))
    os.utime(path, (time, time))
    assert write_curves(results) == [results / FLOW / CURVES]


def test_a_run_that_diverged_and_damaged_files_do_not_stop_the_others(results, monkeypatch):
    said = []
    monkeypatch.setattr("nfpi.figures.curves.notice", lambda text: said.append(text) or draw_curves(frame(rows())))
    lost = results / "digits/mef/fpi/lambda=1000000/seed=0"
    mark_diverged([lost / "log.csv", lost / "metrics.json"], Diverged(4, 1, "variance", 1e6))
    (results / FLOW / "log.csv").write_text("epoch,train_bits_per_dim\n1,much\n", encoding="utf-8")
    (results / FLOW / "resnet18/temperature=1/metrics.json").write_text("{", encoding="utf-8")
    assert len(write_curves(results)) == 3
    assert len(said) == 2
    assert "column train_bits_per_dim: " in said[0]
    assert "diverged at iteration 4" in said[1]


def test_a_training_that_diverged_is_drawn_up_to_there(results, monkeypatch):
    titles = []
    drawn = "nfpi.figures.curves.draw_curves"
    monkeypatch.setattr(drawn, lambda log, title: titles.append(title) or draw_curves(log, title))
    mark_diverged([results / FLOW / "metrics.json"], TrainingDiverged("not finite at step 40", 40, "loss"))
    write_curves(results)
    assert "step 40" in titles[0]
