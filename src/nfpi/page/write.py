"""Write index.html: the main results, and all that is in a folder of results.

Titles and captions of tables and figures are saved beside the results for `nfpi page`, which does not read the preset.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import Field

from nfpi.config.base import Name
from nfpi.config.metrics import metric
from nfpi.config.settings import Config
from nfpi.figures.curves import write_curves
from nfpi.page.pictures import Picture, embed_file
from nfpi.page.runs import WEIGHT, add_differing_settings, compose_name, explain_metrics, lay_out_overviews, show_runs
from nfpi.results.claims.layout import CLAIMS, lay_out_claims, read_claims
from nfpi.results.costs import lay_out_costs, read_jobs, sum_costs
from nfpi.results.differences import compare_settings, list_versions
from nfpi.results.main_results import MainResult, select_main_results
from nfpi.results.numbers import count_decimals, format_duration, format_measurement, format_number
from nfpi.results.recorded.runs import OUTDATED, RecordedRun, find_runs
from nfpi.results.tables.building import read_table
from nfpi.results.tables.layout import lay_out
from nfpi.results.tables.markup import TextTable, load_templates
from nfpi.results.tables.rows import list_tabled_runs
from nfpi.runs import COLLECTED_FOLDER, FIGURES_FOLDER, TABLES_FOLDER, Run
from nfpi.runtime.chains import Chain
from nfpi.runtime.faults import format_error
from nfpi.runtime.files import write_atomically
from nfpi.runtime.formats import FormatError, Record, check_record, read_json_object
from nfpi.runtime.manifests import find_product

PAGE = "index.html"
DESCRIPTIONS_FILE = "page.json"
"""Name of the file of titles and captions, in the folder of results."""
_MOST_PROBLEMS = 12
"""Largest number of problems listed at the head of a page; a single further one is listed too."""


def write_page(root: Path, chain: Chain | None = None) -> Path:
    """Write index.html into a folder results/{preset}.

    Missing or damaged files do not raise; the page names them.

    Args:
        root: the folder.
        chain: says which runs are outdated, see :func:`nfpi.results.recorded.runs.find_runs`.

    Returns:
        The path of the page.

    Raises:
        FileNotFoundError: the folder is missing.
        OSError: the page cannot be written.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: expected a folder of results, received none")
    template = load_templates("nfpi.page").get_template("page.html")
    return write_atomically(root / PAGE, template.render(page=read_page(root, chain)).encode(errors="backslashreplace"))


def read_page(root: Path, chain: Chain | None = None) -> dict[str, Any]:
    """Draw curves that are missing or outdated, and read the contents of a page, as its template names them."""
    problems: list[str] = []
    described = _read_descriptions(root, problems)
    try:
        write_curves(root)
    except OSError as error:
        problems.append(f"curves: {error}")
    recorded = find_runs(root, chain)
    kinds = compare_settings(recorded)
    claims = read_shown_claims(root)
    tables = read_tables(root, described.tables)
    figures = read_figures(root, described.figures)
    runs = show_runs(root, recorded)
    everything = [run for flow in runs for run in flow.with_classifiers]
    add_differing_settings(everything, kinds)
    jobs = read_jobs(root)
    outdated = sum(item.is_outdated for item in recorded)
    untabled = _find_untabled_runs(recorded, described)
    headlines = show_headlines([item for item in recorded if not (item.is_outdated or item.run in untabled)], tables)
    problems += [f"{'1 run:' if outdated == 1 else f'{outdated} runs, each'} {OUTDATED}"] if outdated else []
    problems += [fault for shown in (claims, *tables, *figures) for fault in shown.faults]
    problems += [fault for run in everything for fault in run.faults]
    return {
        "preset": root.resolve().name,
        "headlines": headlines,
        "meanings": [
            *explain_metrics(headline.metric for headline in headlines),
            *([WEIGHT] if any(item.run.weight for item in recorded) else []),
        ],
        "facts": _list_facts(recorded, untabled, 3600 * jobs["hours"].sum()),
        "problems": _shorten_problems(problems, root),
        "title_of_problems": "Missing, damaged or outdated" if outdated else "Missing or damaged",
        "claims": claims,
        "tables": [table for table in tables if table.files],
        "figures": [figure for figure in figures if figure.files],
        "not_made": [shown.name for shown in (*tables, *figures) if not shown.files],
        "runs": runs,
        "overviews": lay_out_overviews(runs),
        "costs": None if jobs.empty else lay_out_costs(sum_costs(jobs, {})),
        "settings": kinds,
        "versions": list_versions(recorded),
    }


def _read_descriptions(root: Path, problems: list[str]) -> Descriptions:
    try:
        return read_descriptions(root)
    except (FormatError, OSError) as error:
        problems.append(str(error))
        return Descriptions()


def _find_untabled_runs(recorded: Sequence[RecordedRun], described: Descriptions) -> set[Run]:
    """Return the runs that no table needs, such as those of λ that the preset had earlier; empty if this is unknown."""
    needed = set(described.runs or ())
    return {item.run for item in recorded if needed and item.run.folder not in needed}


def _list_facts(recorded: Sequence[RecordedRun], untabled: Collection[Run], seconds: float) -> list[tuple[str, str]]:
    """Summarise data sets, seeds, runs, times and commits."""
    runs = Counter("classifier" if item.run.classifier else "flow" for item in recorded)
    diverged = sum(bool(item.divergence) for item in recorded)
    commits = [item.software.get("commit", "") for item in recorded]
    facts = [
        ("Data", ", ".join(dict.fromkeys(item.run.dataset for item in recorded))),
        ("Seeds", ", ".join(map(str, sorted({item.run.seed for item in recorded})))),
        ("Runs", ", ".join(f"{count} {kind}{'s' * (count > 1)}" for kind, count in runs.items())),
        ("In no table of the preset", f"{len(untabled)} of them" if untabled else ""),
        ("Diverged", str(diverged) if diverged else ""),
        ("Time of all jobs", format_duration(seconds) if seconds else ""),
        ("Commit", ", ".join(filter(None, dict.fromkeys(commit[:7] + commit[40:] for commit in commits)))),
    ]
    return [(name, value) for name, value in facts if value]


def _shorten_problems(problems: Sequence[str], root: Path) -> list[str]:
    """Make paths relative to the folder of results, and limit the number of problems."""
    lines = [problem.replace(f"{root.absolute()}/", "").replace(f"{root}/", "") for problem in problems]
    more = len(lines) - _MOST_PROBLEMS
    return lines if more <= 1 else [*lines[:_MOST_PROBLEMS], f"and {more} more"]


# ---- titles and captions -------------------------------------------------------------------------------------


class FigureDescription(Record):
    """Title and caption of a figure, and the names of its pictures."""

    title: str = ""
    caption: str = ""
    pictures: Annotated[list[str], Field(min_length=1)]


class Descriptions(Record):
    """Titles of tables, and descriptions of figures, by name in the order of the preset.

    Attributes:
        runs: folders of the runs of all tables, and of the flows and classifiers from which these runs start; None:
            unknown.
    """

    tables: dict[Name, str] = {}
    figures: dict[Name, FigureDescription] = {}
    runs: list[str] | None = None


def describe_preset(config: Config) -> Descriptions:
    """Return titles, captions and runs of a preset."""
    figures = {
        name: FigureDescription(title=one.title, caption=one.describe(config), pictures=one.picture_names(name))
        for name, one in config.figures.items()
    }
    runs = list_tabled_runs(config)
    runs += [run.of_flow for run in runs if run.flow]
    runs += [other for run in runs if (other := config.fine_tuned_from(run))]
    return Descriptions(
        tables={name: table.title for name, table in config.tables.items()},
        figures=figures,
        runs=list(dict.fromkeys(run.folder for run in runs)),
    )


def write_descriptions(root: Path, described: Descriptions) -> None:
    """Write descriptions to the folder of results."""
    write_atomically(root / DESCRIPTIONS_FILE, described.model_dump_json(indent=2) + "\n")


def read_descriptions(root: Path) -> Descriptions:
    """Read descriptions from the folder of results; empty before the end of the first call of the workflow.

    Raises:
        FormatError: the file has other contents.
        OSError: the file cannot be read.
    """
    path = root / DESCRIPTIONS_FILE
    if not path.is_file():
        return Descriptions()
    return check_record(Descriptions, read_json_object(path), path, "descriptions of a preset")


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


def read_tables(root: Path, titles: Mapping[str, str]) -> list[ShownResult]:
    """Read the tables of a preset in order, and others in the folder of results."""
    folders = (TABLES_FOLDER, COLLECTED_FOLDER)
    existing = sorted({path.stem for folder in folders for path in root.glob(f"{folder}/*.csv")})
    return [_read_table(root, name, titles.get(name, "")) for name in dict.fromkeys([*titles, *existing])]


def read_figures(root: Path, described: Mapping[str, FigureDescription]) -> list[ShownResult]:
    """Read the described figures, and other pictures in the folder of results."""
    claimed = {picture for figure in described.values() for picture in figure.pictures}
    others = sorted({path.stem for path in root.glob(f"{FIGURES_FOLDER}/*.png")} - claimed)
    figures = [_read_figure(root, name, figure) for name, figure in described.items()]
    return figures + [_read_figure(root, name, FigureDescription(pictures=[name])) for name in others]


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
            shown.tables = [(shown.title, lay_out(shown.frame))]
    except (ValueError, OSError) as error:
        shown.faults.append(format_error(error))
    return shown


def _read_figure(root: Path, name: str, figure: FigureDescription) -> ShownResult:
    files = _list_files(root, FIGURES_FOLDER, dict.fromkeys([*figure.pictures, name]))
    shown = ShownResult(name, figure.title or name, figure.caption, files)
    for picture in figure.pictures if files else []:
        folder, file = root / FIGURES_FOLDER, f"{picture}.png"
        label = f" ({picture})" if len(figure.pictures) > 1 else ""
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


# ---- main results --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Headline:
    """One of the main results, as text.

    Attributes:
        metric: name of the metric.
        label: label of the metric, with the data set.
        value: value with its unit.
        of: description of its runs.
        notes: interval, baseline and the paper's number.
    """

    metric: str
    label: str
    value: str
    of: str
    notes: list[str]


def show_headlines(recorded: Sequence[RecordedRun], tables: Sequence[ShownResult]) -> list[Headline]:
    """Return the main results of the runs, with the paper's numbers in the tables."""
    frames = [table.frame for table in tables if table.frame is not None]
    return [_make_headline(result) for result in select_main_results(recorded, frames)]


def _make_headline(result: MainResult) -> Headline:
    entry, summary, images = metric(result.metric), result.summary, result.measured.images
    decimals = count_decimals(entry, images and images * (summary.count or 1))
    low, high = (format_number(bound, decimals) for bound in summary.interval)
    notes = []
    if len(summary.values) > 1:
        of = "draws" if summary.is_imported else "seeds"
        notes.append(f"mean of {len(summary.values)} {of}, standard deviation {summary.std:.{decimals}f}")
    elif low:
        notes.append(f"95 % interval {low} to {high}" + (f" ({images} test images)" if images else ""))
    if not math.isnan(result.baseline):
        notes.append(f"{result.baseline_label}: {format_number(result.baseline, decimals)} {entry.unit}")
    if not math.isnan(result.paper):
        difference = format_number(summary.mean - result.paper, decimals, signed=True)
        notes.append(f"the paper: {result.paper:g} {entry.unit} (difference {difference})")
    if result.measured.validation.count:
        chooser = metric(result.measured.chosen_by)
        on_samples = result.run.classifier is not None and result.run.augmentation is None
        how = "on images of the best flow; " if on_samples else "chosen by "
        notes.append(f"{how}{chooser.label}: {format_measurement(result.measured.validation.mean, chooser)}")
    value = f"{format_number(summary.mean, decimals)} {entry.unit}"
    return Headline(entry.name, f"{entry.label} on {result.run.dataset}", value, compose_name(result.run), notes)
