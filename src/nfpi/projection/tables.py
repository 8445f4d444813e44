"""Print the tables of docs/jean-zay.md: hours and memory that a preset would take on GPUs.

    python -m nfpi.projection.tables --preset paper

Run where config.yaml and presets/ lie. No GPU is needed, and none is used: what is printed is computed, not measured.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from nfpi.config.resolution import resolve
from nfpi.projection.counting import Step
from nfpi.projection.hours import CARDS, MEMORY_FRACTION, PRECISIONS, Card, Projection
from nfpi.projection.work import Work, list_work

GIB = 2**30
LARGEST_ACCUMULATE = 64
SMALLEST_SHARE = 0.01
"""a stage with a smaller share of the hours in the first column has no row of its own"""
COLUMNS = [(card, precision) for card in CARDS for precision in card.precisions]


def format_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a table as Markdown, with numbers in all columns but the first."""
    lines = [head, [":---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def tabulate_hours(projection: Projection) -> str:
    """Tabulate the hours of each stage, on each card in each precision."""
    hours = [projection.estimate_hours(card, precision) for card, precision in COLUMNS]
    totals = [sum(column.values()) for column in hours]
    stages = sorted(hours[0], key=lambda stage: -hours[0][stage])
    large = [stage for stage in stages if hours[0][stage] >= SMALLEST_SHARE * totals[0]]
    rest = [total - sum(column[stage] for stage in large) for column, total in zip(hours, totals, strict=True)]
    rows = [[stage, *(_format_hours(column[stage]) for column in hours)] for stage in large]
    if len(large) < len(stages):
        rows.append(["all other stages", *map(_format_hours, rest)])
    rows.append(["**all**", *(f"**{_format_hours(total)}**" for total in totals)])
    return format_table(["stage", *(f"{card.name}, {precision}" for card, precision in COLUMNS)], rows)


def _format_hours(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 0.1 else "< 0.1"


def tabulate_steps(projection: Projection) -> str:
    """Tabulate time and memory of each training step; of steps with equal numbers, only the first is listed."""
    titles: dict[tuple[str, ...], str] = {}  # title by the other cells of its row
    for title, work in list_steps(projection):
        steps = {precision: projection.count(work, precision) for precision in PRECISIONS}
        seconds = [card.estimate_seconds(steps[precision].operations) for card, precision in COLUMNS]
        memory = [format_memory(steps[precision], precision, work) for precision in PRECISIONS]
        titles.setdefault((*(f"{1e3 * value:.0f}" for value in seconds), *memory), title)
    head = ["training step", *(f"{card.name}, {precision} (ms)" for card, precision in COLUMNS)]
    head += [f"memory, {precision} (GiB)" for precision in PRECISIONS]
    return format_table(head, [[title, *cells] for cells, title in titles.items()])


def list_steps(projection: Projection) -> Iterator[tuple[str, Work]]:
    """Yield a title for each kind of training step, and its work; flows come first."""
    steps = [work for work in projection.work if work.is_step]
    for work in sorted(steps, key=lambda work: (work.kind != "flow_step", work.subject, work.shape, work.classes)):
        yield f"{work.subject}, {'×'.join(map(str, work.shape))}, batch {work.batch}", work


def format_memory(step: Step, precision: str, work: Work) -> str:
    """Return the memory of a step in GiB, and for each card that it does not fit, a batch or accumulation that fits."""
    fitting = {card.name: describe_fit(step, card, work) for card in CARDS if precision in card.precisions}
    remedies = [f"{card}: {remedy}" for card, remedy in fitting.items() if remedy != "fits"]
    return f"{(step.saved + step.state) / GIB:.1f}" + "".join(f" ({remedy})" for remedy in remedies)


def describe_fit(step: Step, card: Card, work: Work) -> str:
    """Say whether a step fits into the memory of a card, and if not, which batch or accumulation does."""
    room = MEMORY_FRACTION * card.memory * GIB - step.state
    if step.saved <= room:
        return "fits"
    if work.kind == "flow_step":
        batch = int(work.batch * room / step.saved)
        return f"batch {batch}" if batch >= 1 else "does not fit"
    divisors = (number for number in range(2, LARGEST_ACCUMULATE + 1) if work.batch % number == 0)
    accumulate = next((number for number in divisors if step.saved / number <= room), None)
    return f"accumulate: {accumulate}" if accumulate is not None else "does not fit"


def tabulate_cards() -> str:
    """Tabulate the rates that the estimates assume."""
    arithmetics = (*PRECISIONS.values(), "float64")
    rows = []
    for card in CARDS:
        peaks = [f"{card.peaks[name] / 1e12:g}" if name in card.peaks else "" for name in arithmetics]
        rows.append([card.name, f"{card.bandwidth / 1e12:g}", *peaks, f"{1e6 * card.launch:g}"])
    return format_table(["card", "bandwidth (TB/s)", *arithmetics, "launch (µs)"], rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Count the operations of a preset, and print its hours and memory."""
    parser = argparse.ArgumentParser(prog="python -m nfpi.projection.tables", description=__doc__)
    parser.add_argument("--preset", default="paper", help="name of a preset, or path of its file")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.manual_seed(0)
    config = resolve(Path("config.yaml"), Path("presets"), {"preset": parser.parse_args(arguments).preset}).config
    projection = Projection(config, list_work(config))
    print(tabulate_hours(projection), tabulate_steps(projection), tabulate_cards(), sep="\n")


if __name__ == "__main__":
    main()
