"""Training curves from log.csv."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nfpi.figures.style import OKABE_ITO, FigureError, collect_legend, new_figure, notice, render_figure
from nfpi.runs import INITIAL, LOG_FILE, METRICS_FILE
from nfpi.runtime.files import write_atomically

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

CURVES = "curves.png"
"""Name of the picture beside a log."""

_RESOLUTION = 200
"""Pixels per inch."""

_TICK_STEPS = [1, 2, 5, 10]
"""Allowed distances between ticks, times any power of ten."""


_PANELS: dict[str, dict[str, str]] = {
    "Loss (bits/dim)": {"train_bits_per_dim": "training", "validation_bits_per_dim": "validation"},
    "NF-Acc (%)": {"validation_nf_acc": "validation"},
    "Loss of the\nGaussians (nats)": {"prior_loss": "training"},
    "Cross-entropy\n(nats)": {"train_loss": "training"},
}
"""Label of the axis of each panel, and the labels of the columns of the log that it shows."""

_STYLES: dict[str, dict[str, Any]] = {
    "training": {"color": OKABE_ITO["blue"], "linewidth": 1.0},
    "validation": {"color": OKABE_ITO["vermillion"], "linewidth": 0.8, "marker": "o", "markersize": 2.5},
}


def draw_curves(log: pd.DataFrame, title: str = "") -> Figure:
    """Draw the losses and the validation accuracy of a training against the epoch, one panel per quantity.

    Epochs of the initial state, shared by all runs that continue it, are shaded.

    Args:
        log: the log.csv of a flow or a classifier, one row per epoch; quantities without values have no panel.
        title: title of the figure.

    Raises:
        FigureError: the log has no values.
    """
    from matplotlib.ticker import MaxNLocator

    columns = [name for series in _PANELS.values() for name in series if name in log.columns]
    known = {name: log[log[name].notna()] for name in columns if np.isfinite(log[name].astype("float64")).any()}
    panels = {label: series for label, series in _PANELS.items() if series.keys() & known.keys()}
    if not panels:
        raise FigureError("expected the log of a training, received one without values")
    # the epochs of the initial state have no `seconds` in the log of a run
    shared = int(log["seconds"].isna().cumprod().sum()) if "seconds" in log.columns else 0
    with new_figure(1.15 * len(panels) + 0.6) as figure:
        grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (quantity, series) in zip(grid, panels.items(), strict=True):
            for column, label in series.items():
                if column in known:  # values recorded only every few epochs are connected
                    axes.plot(known[column]["epoch"], known[column][column], label=label, **_STYLES[label])
            if shared:
                axes.axvspan(0.5, shared + 0.5, color="0.9", linewidth=0, label="initial state", zorder=0)
            axes.set_ylabel(quantity)
            axes.yaxis.set_major_locator(MaxNLocator(5, steps=_TICK_STEPS))
            axes.grid(axis="y")
        grid[0].set_xlim(0.5, max(float(log["epoch"].max()), 2.0) + 0.5)
        grid[0].xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=_TICK_STEPS))
        grid[0].set_title(title, loc="left", fontsize=7)
        grid[-1].set_xlabel("Epoch")
        figure.align_ylabels()
        handles = collect_legend(grid)
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3)
    return figure


def write_curves(root: Path) -> list[Path]:
    """Draw the curves of all flows and classifiers in a folder of results, beside their logs.

    Curves newer than their log and its metrics.json are kept. Pictures of diverged runs say so.

    Args:
        root: results/{preset}, or a folder in it.

    Returns:
        The pictures written.

    Raises:
        OSError: a picture cannot be written.
    """
    written = []
    for log in find_logs(root):
        picture = log.with_name(CURVES)
        if not _is_current(picture, log):
            figure = _draw_log(log, "/ ".join(log.parent.relative_to(root).parts))
            written.append(write_atomically(picture, render_figure(figure, "png", _RESOLUTION)))
    return written


def find_logs(root: Path) -> Iterator[Path]:
    """Find the logs of flows and classifiers in a folder of results, except for those of initial states."""
    of_initial_state = INITIAL.format(dataset="*", flow="*", start="*", seed="*")
    for path in sorted(root.rglob(LOG_FILE)):
        if not path.parent.match(of_initial_state):
            yield path


def _draw_log(path: Path, title: str) -> Figure:
    """Draw the curves of a log, or a notice that says why there are none; the title says if the training diverged."""
    from nfpi.results.recorded.csv_files import read_csv
    from nfpi.runtime.divergence import Diverged, raise_if_marked

    lines = [textwrap.fill(title, 55).replace("/ ", "/")]  # textwrap breaks lines at the spaces after slashes
    try:
        raise_if_marked(path.with_name(METRICS_FILE))
    except Diverged as fault:
        lines.append(textwrap.fill(str(fault), 60))
    except ValueError:
        pass  # metrics.json is damaged, but the log can still be drawn
    try:
        columns = [column for series in _PANELS.values() for column in (*series, "seconds")]
        return draw_curves(read_csv(path, {"epoch": "int64"}, columns), "\n".join(lines))
    except ValueError as fault:
        return notice("\n".join(lines[1:] or [str(fault)]))


def _is_current(picture: Path, log: Path) -> bool:
    """Return whether a picture is not older than what it shows, the log and a divergence."""
    # a flow's metrics.json is written by a later stage than its log
    newest = max(path.stat().st_mtime_ns for path in (log, log.with_name(METRICS_FILE)) if path.is_file())
    return picture.is_file() and picture.stat().st_mtime_ns >= newest
