"""Write index.html from the files in a folder of results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from nfpi.figures.curves import write_curves
from nfpi.page.headline import select_headlines
from nfpi.page.overview import (
    WEIGHT,
    add_differing_settings,
    compare_settings,
    explain_metrics,
    lay_out_overviews,
    list_versions,
)
from nfpi.page.products import Descriptions, read_descriptions, read_figures, read_shown_claims, read_tables
from nfpi.page.runs import show_runs
from nfpi.results.costs import lay_out_costs, read_jobs, sum_costs
from nfpi.results.numbers import format_duration
from nfpi.results.recorded.runs import OUTDATED, RecordedRun, find_runs
from nfpi.results.tables.markup import load_templates
from nfpi.runs import Run
from nfpi.runtime.chains import Chain
from nfpi.runtime.files import write_atomically
from nfpi.runtime.formats import FormatError

PAGE = "index.html"
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
    best = select_headlines([item for item in recorded if not (item.is_outdated or item.run in untabled)], tables)
    problems += [f"{'1 run:' if outdated == 1 else f'{outdated} runs, each'} {OUTDATED}"] if outdated else []
    problems += [fault for product in (claims, *tables, *figures) for fault in product.faults]
    problems += [fault for run in everything for fault in run.faults]
    return {
        "preset": root.resolve().name,
        "headlines": best,
        "meanings": [
            *explain_metrics(headline.metric for headline in best),
            *([WEIGHT] if any(item.run.weight for item in recorded) else []),
        ],
        "facts": _list_facts(recorded, untabled, 3600 * jobs["hours"].sum()),
        "problems": _shorten_problems(problems, root),
        "title_of_problems": "Missing, damaged or outdated" if outdated else "Missing or damaged",
        "claims": claims,
        "tables": [table for table in tables if table.files],
        "figures": [figure for figure in figures if figure.files],
        "not_made": [product.name for product in (*tables, *figures) if not product.files],
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
