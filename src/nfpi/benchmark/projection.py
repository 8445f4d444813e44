"""Hours and memory that a preset would take on GPUs, from operations that are counted on fake tensors.

    python -m nfpi.benchmark.projection --preset paper --output docs/performance.md

Run where config.yaml and presets/ lie. No GPU is needed, and none is used: what is written is computed, not measured.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from nfpi.benchmark.batches import COUNTED_PRECISIONS, Projection
from nfpi.benchmark.cards import (
    BANDWIDTH_FRACTION,
    CARDS,
    MEMORY_FRACTION,
    PEAK_FRACTION,
    PRECISIONS,
    TENSOR_CORE_FRACTION,
    Card,
)
from nfpi.benchmark.computations import Step
from nfpi.benchmark.work import Work, list_work
from nfpi.config.resolution import resolve
from nfpi.runtime.files import write_atomically

GIB = 2**30
LARGEST_ACCUMULATE = 64
SMALLEST_SHARE = 0.01
"""a stage with a smaller share of the hours in the first column has no row of its own"""


def compose_page(projection: Projection, preset: str, output: Path) -> str:
    """Return the page as Markdown: the command that writes it to `output`, the tables, and how they were computed."""
    return "\n".join(
        [
            *_compose_introduction(projection, preset, output),
            *_compose_hours(projection),
            *_compose_steps(projection),
            *_compose_assumptions(),
        ]
    )


def _compose_introduction(projection: Projection, preset: str, output: Path) -> list[str]:
    count = len(projection.config.seeds)
    seeds = "one seed" if count == 1 else f"{count} seeds"
    return [
        "# Performance on GPUs",
        "",
        "**Nothing on this page was run on a GPU.**",
        f"This command computes the hours and memory of preset `{preset}` ({seeds}):",
        "",
        "<!-- not run: minutes -->",
        "```bash",
        f"python -m nfpi.benchmark.projection --preset {preset} --output {output}",
        "```",
        "",
    ]


_DECODING = (
    "The hours of `train_classifier: autoencoder`, which decodes latents for classifiers, are those of float32; on "
    "A100 and H100 it runs in bfloat16, which is faster."
)


def _list_columns() -> list[tuple[Card, str]]:
    return [(card, precision) for card in CARDS for precision in COUNTED_PRECISIONS if precision in card.precisions]


def _format_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, [":---", *["---:"] * (len(head) - 1)], *rows]
    return [*("| " + " | ".join(line) + " |" for line in lines), ""]


def _compose_hours(projection: Projection) -> list[str]:
    columns = _list_columns()
    hours = [projection.estimate_hours(card, precision) for card, precision in columns]
    totals = [sum(column.values()) for column in hours]
    stages = sorted(hours[0], key=lambda stage: -hours[0][stage])
    large = [stage for stage in stages if hours[0][stage] >= SMALLEST_SHARE * totals[0]]
    rest = [total - sum(column[stage] for stage in large) for column, total in zip(hours, totals, strict=True)]
    rows = [[stage, *(_format_hours(column[stage]) for column in hours)] for stage in large]
    if len(large) < len(stages):
        rows.append(["all other stages", *map(_format_hours, rest)])
    rows.append(["**all**", *(f"**{_format_hours(total)}**" for total in totals)])
    head = ["stage", *(f"{card.name}, {precision}" for card, precision in columns)]
    return [
        "## Hours by stage",
        "",
        "The hours are those of all tables on one GPU; a run in several tables counts once.",
        "Training steps are in the column's precision, everything else in float32.",
        "`precision: auto` is bf16-mixed on A100 and H100, 32-true on V100.",
        "Reading images with their standard augmentation, fitting priors (seconds) and drawing figures are not "
        "counted.",
        *([_DECODING] if any(stage.endswith(": autoencoder") and "train" in stage for stage in large) else []),
        "",
        *_format_table(head, rows),
    ]


def _format_hours(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 0.1 else "< 0.1"


def _select_training_steps(projection: Projection) -> dict[str, Work]:
    """Return one item of work for each title of a training step; the number of classes is no part of a title."""
    steps = [work for work in projection.work if work.kind.endswith("_step")]
    steps.sort(key=lambda work: (work.kind != "flow_step", work.subject, work.shape, work.classes))
    selected: dict[str, Work] = {}
    for work in steps:
        selected.setdefault(_format_title(projection, work), work)
    return selected


def _format_title(projection: Projection, work: Work) -> str:
    sides = "×".join(map(str, work.shape))
    dataset = projection.get_overriding_dataset(work)
    return f"{work.subject}{f' of {dataset}' if dataset else ''}, {sides}, batch {work.batch}"


def _compose_steps(projection: Projection) -> list[str]:
    columns = _list_columns()
    titles: dict[tuple[str, ...], str] = {}  # title by the other cells of its row
    for title, work in _select_training_steps(projection).items():
        steps = {precision: projection.get_step(work, precision) for precision in COUNTED_PRECISIONS}
        seconds = [card.estimate_seconds(steps[precision].counts, precision) for card, precision in columns]
        memory = [_format_memory(steps[precision], precision, work) for precision in COUNTED_PRECISIONS]
        titles.setdefault((*(f"{1e3 * value:.0f}" for value in seconds), *memory), title)
    head = ["training step", *(f"{card.name}, {precision} (ms)" for card, precision in columns)]
    head += [f"memory, {precision} (GiB)" for precision in COUNTED_PRECISIONS]
    return [
        "## A training step",
        "",
        "The memory is that of weights, averaged weights, gradients, optimizer moments and all activations of a "
        "batch, without the preset's `accumulate` and `checkpoint_activations`.",
        f"If this exceeds {100 * MEMORY_FRACTION:.0f} % of a card's memory, brackets name the card and the batch size "
        "or `accumulate` that fits.",
        "Of steps with equal numbers, only the first is listed.",
        "",
        *_format_table(head, [[title, *cells] for cells, title in titles.items()]),
    ]


def _format_memory(step: Step, precision: str, work: Work) -> str:
    """Return the memory of a step in GiB, and for each card that it does not fit, a batch or accumulation that fits."""
    fitting = {card.name: _describe_fit(step, card, work) for card in CARDS if precision in card.precisions}
    remedies = [f"{card}: {remedy}" for card, remedy in fitting.items() if remedy != "fits"]
    return f"{(step.saved + step.state) / GIB:.1f}" + "".join(f" ({remedy})" for remedy in remedies)


def _describe_fit(step: Step, card: Card, work: Work) -> str:
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


def _compose_assumptions() -> list[str]:
    arithmetics = (*(PRECISIONS[name] for name in COUNTED_PRECISIONS), "float64")
    head = ["card", "bandwidth (TB/s)", *arithmetics, "launch (µs)"]
    rows = []
    for card in CARDS:
        peaks = [f"{card.peaks[name] / 1e12:g}" if name in card.peaks else "" for name in arithmetics]
        rows.append([card.name, f"{card.bandwidth / 1e12:g}", *peaks, f"{1e6 * card.launch:g}"])
    return [
        "## How it was computed",
        "",
        "Each kind of batch runs once on fake tensors, to count the FLOPs and bytes of its operations.",
        "An operation takes max(FLOPs / rate, bytes / bandwidth); a batch takes the sum over its operations, or their "
        "launch time if longer.",
        f"We assume {100 * PEAK_FRACTION:.0f} % of the peak rate in float32 and float64, "
        f"{100 * TENSOR_CORE_FRACTION:.0f} % in bfloat16, {100 * BANDWIDTH_FRACTION:.0f} % of the bandwidth, and "
        "the launch times below.",
        "In training steps, the couplings' power series of e^S have as many terms as in a new flow (|S_ij| up to "
        "0.25); for |S_ij| up to 0.4, a step takes about a third longer. Other passes are counted with |S_ij| up to "
        "0.2.",
        "Compilation, caches and the inefficiency of small kernels are ignored: real hours may differ by a factor of "
        "two.",
        "",
        "Peak rates (TFLOP/s, without sparsity) and bandwidths are from the vendor's data sheets for SXM modules; "
        "launch times are per operation:",
        "",
        *_format_table(head, rows),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Count the operations of a preset, project its hours and memory, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m nfpi.benchmark.projection", description=__doc__)
    parser.add_argument("--preset", default="paper", help="name of a preset, or path of its file")
    parser.add_argument("--output", type=Path, required=True, help="Markdown file to write")
    parser.add_argument("--config", type=Path, default=Path("config.yaml"))
    parser.add_argument("--presets", type=Path, default=Path("presets"))
    parser.add_argument("--jobs", type=int, default=1, help="number of processes that count operations")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.manual_seed(0)
    resolved = resolve(chosen.config, chosen.presets, {"preset": chosen.preset})
    projection = Projection(resolved.config, list_work(resolved.config))
    if chosen.jobs > 1:
        projection.count_in_parallel(chosen.jobs)
    write_atomically(chosen.output, compose_page(projection, chosen.preset, chosen.output))


if __name__ == "__main__":
    main()
