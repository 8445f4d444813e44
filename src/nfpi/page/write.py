"""Write index.html: the main results, and all that is in a folder of results.

Titles and captions are those of the settings in settings.json.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from nfpi.config.settings import Config
from nfpi.figures.curves import write_curves
from nfpi.page.headlines import show_headlines
from nfpi.page.pictures import Picture, embed_file
from nfpi.page.runs import (
    WEIGHT,
    ShownRun,
    add_misclassified_images,
    explain_metrics,
    show_runs,
)
from nfpi.results.claims.layout import CLAIMS, lay_out_claims, read_claims
from nfpi.results.costs import lay_out_costs, read_jobs
from nfpi.results.recorded.calls import read_settings
from nfpi.results.recorded.runs import OUTDATED, find_runs
from nfpi.results.tables.building import read_table
from nfpi.results.tables.layout import lay_out
from nfpi.results.tables.markup import TextTable, load_templates
from nfpi.results.tables.rows import compose_use, find_best_flow
from nfpi.runs import FIGURES_FOLDER, PRESET_FILE, TABLES_FOLDER
from nfpi.runtime.chains import Chain
from nfpi.runtime.faults import format_error
from nfpi.runtime.files import write_atomically
from nfpi.runtime.manifests import find_product

PAGE = "index.html"


def write_page(root: Path, chain: Chain | None = None) -> Path:
    """Write index.html into a folder results/{preset}.

    Missing or damaged files other than settings.json do not raise; the page names them.

    Args:
        root: the folder.
        chain: says which runs are outdated, see :func:`nfpi.results.recorded.runs.find_runs`.

    Returns:
        The path of the page.

    Raises:
        FormatError: settings.json is damaged, or extensions that it needs are not loaded.
        OSError: settings.json cannot be read, or the page cannot be written.
    """
    template = load_templates("nfpi.page").get_template("page.html")
    return write_atomically(root / PAGE, template.render(page=read_page(root, chain)))


def read_page(root: Path, chain: Chain | None = None) -> dict[str, Any]:
    """Draw curves that are missing or outdated, and read the contents of a page, as its template names them."""
    problems: list[str] = []
    config = read_settings(root).config
    try:
        write_curves(root)
    except OSError as error:
        problems.append(f"curves: {error}")
    recorded = find_runs(root, chain)
    claims = read_shown_claims(root)
    tables, figures = read_tables(root, config), read_figures(root, config)
    runs = show_runs(root, recorded)
    everything = [run for flow in runs for run in flow.with_classifiers]
    jobs = read_jobs(root)
    outdated = sum(bool(item.outdated) for item in recorded)
    frames = {table.name: table.frame for table in tables if table.frame is not None}
    best_run = find_best_flow(root, config, frames)
    best = next((run for run in runs if run.recorded.run == best_run), None)
    is_of_paper = not (root / PRESET_FILE).is_file()
    own = best if not is_of_paper else None
    if own is not None:
        add_misclassified_images(root, own)
    headlines = list(show_headlines(list(frames.values())))
    problems += [f"{'1 run:' if outdated == 1 else f'{outdated} runs, each'} {OUTDATED}"] if outdated else []
    problems += [fault for shown in (claims, *tables, *figures) for fault in shown.faults]
    problems += [fault for run in everything for fault in run.faults]
    return {
        "preset": root.resolve().name,
        "is_of_paper": is_of_paper,
        "headlines": headlines,
        "meanings": [
            *explain_metrics(headline.metric for headline in headlines),
            *([WEIGHT] if any(item.run.weight for item in recorded) else []),
        ],
        "samples": _choose_samples(best, figures),
        "own": own,
        "command": compose_use(config, root, own.recorded.run) if own is not None else "",
        "problems": [problem.replace(f"{root}/", "") for problem in problems],
        "title_of_problems": "Missing, damaged or outdated" if outdated else "Missing or damaged",
        "claims": claims,
        "tables": [table for table in tables if table.files],
        "figures": [figure for figure in figures if figure.files],
        "runs": runs,
        "explanations": explain_metrics(name for item in recorded for name in item.metrics),
        "costs": None if jobs.empty else lay_out_costs(jobs),
    }


def _choose_samples(best: ShownRun | None, figures: Sequence[ShownResult]) -> Picture | None:
    """Return the images drawn from the best flow, else the figure of samples; None: there is neither."""
    if best is not None and best.samples:
        return replace(
            best.samples[0], caption=f"{best.name}, seed {best.recorded.run.seed}. {best.samples[0].caption}"
        )
    shown = (figure.pictures for figure in figures if figure.name in ("samples", "samples_by_weight"))
    return next((replace(pictures[0], caption="") for pictures in shown if pictures), None)


# ---- tables, figures and claims ------------------------------------------------------------------------------


@dataclass
class ShownResult:
    """A table, a figure, or the claims, with its files, or the reason why it is missing.

    Attributes:
        name: its name in the preset.
        title: its title.
        caption: its caption.
        files: files in all formats, relative to the page; empty if it was not made.
        frame: the table as read.
        tables: laid-out tables, with their titles.
        pictures: its pictures.
        faults: one line per missing or damaged file.
    """

    name: str
    title: str = ""
    caption: str = ""
    files: list[str] = field(default_factory=list)
    frame: pd.DataFrame | None = field(default=None, repr=False)
    tables: list[tuple[str, TextTable]] = field(default_factory=list, repr=False)
    pictures: list[Picture] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def read_tables(root: Path, config: Config) -> list[ShownResult]:
    """Read the tables of a preset in order."""
    return [_read_table(root, name, table.title) for name, table in config.tables.items()]


def read_figures(root: Path, config: Config) -> list[ShownResult]:
    """Read the figures of a preset in order."""
    return [
        _read_figure(root, ShownResult(name, figure.title or name, figure.describe(config)), figure.picture_names(name))
        for name, figure in config.figures.items()
    ]


def read_shown_claims(root: Path) -> ShownResult:
    """Read the verdicts on claims in a folder of results."""
    path = root / f"{CLAIMS}.csv"
    shown = ShownResult(CLAIMS, files=_list_files(root, "", [CLAIMS]))
    try:
        if find_product(path) is not None or shown.files:  # a file that differs from its manifest is a fault
            shown.tables = lay_out_claims(read_claims(path))
            shown.pictures.append(embed_file(root, f"{CLAIMS}.png", "Figure: differences that decide the claims"))
    except (ValueError, OSError) as error:
        shown.faults.append(format_error(error))
    return shown


def _read_table(root: Path, name: str, title: str) -> ShownResult:
    path = root / TABLES_FOLDER / f"{name}.csv"
    shown = ShownResult(name, title or name)
    try:
        shown.files = _list_files(root, TABLES_FOLDER, [name]) if path.is_file() else []
        if find_product(path) is not None or shown.files:  # a file that differs from its manifest is a fault
            shown.frame = read_table(path)
            shown.tables = [(shown.title, lay_out(shown.frame, in_grey=True))]
    except (ValueError, OSError) as error:
        shown.faults.append(format_error(error))
    return shown


def _read_figure(root: Path, shown: ShownResult, pictures: Sequence[str]) -> ShownResult:
    shown.files = _list_files(root, FIGURES_FOLDER, dict.fromkeys([*pictures, shown.name]))
    for picture in pictures if shown.files else []:
        folder, file = root / FIGURES_FOLDER, f"{picture}.png"
        label = f" ({picture})" if len(pictures) > 1 else ""
        try:
            shown.pictures.append(embed_file(folder, file, f"Figure: {shown.title}{label}", picture if label else ""))
        except FileNotFoundError:
            shown.faults.append(f"{folder / file}: missing")
        except (ValueError, OSError) as error:
            shown.faults.append(str(error))
    return shown


def _list_files(root: Path, folder: str, stems: Iterable[str]) -> list[str]:
    """Return the files with these stems in a folder, relative to `root`."""
    files = sorted((root / folder).glob("*"))
    return [path.relative_to(root).as_posix() for stem in stems for path in files if path.stem == stem]
