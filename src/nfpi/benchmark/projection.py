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

from nfpi.benchmark.batches import Projection, make_batch_key
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


def compose_page(projection: Projection, preset: str) -> str:
    """Return the page as Markdown: the tables, and how they were computed."""
    return "\n".join(
        [
            *_compose_introduction(preset),
            *_compose_hours(projection),
            *_compose_steps(projection),
            *_compose_memory(projection),
            *_compose_assumptions(),
        ]
    )


def _compose_introduction(preset: str) -> list[str]:
    return [
        "# Performance on GPUs",
        "",
        "**Nothing on this page was run on a GPU.**",
        f"Hours and memory of preset `{preset}` with one seed are computed from counted operations.",
        "Times measured on CPUs are in [Measurements](measurements.md).",
        "",
        "This command writes the page (three minutes on one core):",
        "",
        "<!-- not run: minutes -->",
        "```bash",
        f"python -m nfpi.benchmark.projection --preset {preset} --output docs/performance.md",
        "```",
        "",
    ]


def _list_columns() -> list[tuple[Card, str]]:
    return [(card, precision) for card in CARDS for precision in card.precisions]


def _format_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, [":---", *["---:"] * (len(head) - 1)], *rows]
    return [*("| " + " | ".join(line) + " |" for line in lines), ""]


def _compose_hours(projection: Projection) -> list[str]:
    columns = _list_columns()
    hours = [projection.estimate_hours(card, precision) for card, precision in columns]
    stages = sorted(hours[0], key=lambda stage: -hours[0][stage])
    rows = [[stage, *(_format_hours(column[stage]) for column in hours)] for stage in stages]
    rows.append(["**all**", *(f"**{_format_hours(sum(column.values()))}**" for column in hours)])
    head = ["stage", *(f"{card.name}, {precision}" for card, precision in columns)]
    return [
        "## Hours by stage",
        "",
        "Hours on one GPU for all tables of the preset; a run that several tables share is counted once.",
        "The precision in a column's title is that of training steps; everything else is computed in float32.",
        "`precision: auto` selects bf16-mixed on an A100 or H100 and 32-true on a V100.",
        "Reading and augmenting images, fitting priors (seconds) and figures are not counted.",
        "`train_classifier: autoencoder` is the decoding of stored latents for classifiers; `eva02_pretrained` is only "
        "tested, not trained.",
        "",
        *_format_table(head, rows),
    ]


def _format_hours(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 0.1 else "< 0.1"


def _select_training_steps(projection: Projection) -> list[Work]:
    """Return one item of work for each kind of training step."""
    found = {make_batch_key(work): work for work in projection.work if work.kind.endswith("_step")}
    return sorted(found.values(), key=lambda work: (work.kind != "flow_step", work.subject, work.shape, work.classes))


def _format_title(work: Work) -> str:
    sides = "×".join(map(str, work.shape))
    return f"{work.subject}, {sides}, batch {work.batch}"


def _compose_steps(projection: Projection) -> list[str]:
    rows = []
    for work in _drop_equal_titles(_select_training_steps(projection)):
        for precision in ("32-true", "bf16-mixed"):
            step = projection.get_step(work, precision)
            counts = step.counts
            times = [
                f"{1e3 * card.estimate_seconds(counts, precision):.0f}" if precision in card.precisions else ""
                for card in CARDS
            ]
            operations = f"{len(step.passes.operations)} + {len(step.update.operations)}"
            cells = [operations, f"{counts.flops / 1e12:.2f}", f"{counts.bytes / 1e9:.0f}"]
            rows.append([f"{_format_title(work)}, {precision}", *cells, *times])
    head = ["training step", "operations", "TFLOP", "GB moved", *(f"{card.name} (ms)" for card in CARDS)]
    return [
        "## A training step",
        "",
        "Operations dispatched in eager mode: those of forward and backward passes + optimizer and weight average.",
        "GB moved: what these operations read and write if nothing stays in a cache.",
        "",
        *_format_table(head, rows),
    ]


def _drop_equal_titles(works: Sequence[Work]) -> list[Work]:
    """Drop steps that differ from an earlier one only in the number of classes."""
    return list({_format_title(work): work for work in reversed(works)}.values())[::-1]


def _compose_memory(projection: Projection) -> list[str]:
    rows = []
    for work in _drop_equal_titles(_select_training_steps(projection)):
        for precision in ("32-true", "bf16-mixed"):
            step = projection.get_step(work, precision)
            fitting = [_describe_fit(step, card, work) if precision in card.precisions else "" for card in CARDS]
            amounts = [f"{step.saved / GIB:.1f}", f"{step.state / GIB:.2f}"]
            rows.append([f"{_format_title(work)}, {precision}", *amounts, *fitting])
    head = ["training step", "kept for backward (GiB)", "weights and moments (GiB)", *(card.name for card in CARDS)]
    return [
        "## Memory",
        "",
        '"Kept for backward" is what autograd stores; "weights and moments" include gradients and averaged weights.',
        f"A step fits if their sum is at most {100 * MEMORY_FRACTION:.0f} % of the card's memory; the rest is for "
        "temporary results, CUDA's context and fragmentation.",
        "Otherwise the cell gives the `accumulate` of a classifier, or the batch size of a flow, that fits.",
        "The table is for the whole batch at once, even where the preset sets `accumulate`.",
        "",
        *_format_table(head, rows),
    ]


def _describe_fit(step: Step, card: Card, work: Work) -> str:
    """Say whether a step fits into the memory of a card, and if not, which batch or accumulation does."""
    room = MEMORY_FRACTION * card.memory * GIB - step.state
    if step.saved <= room:
        return "fits"
    if work.kind == "flow_step":
        return f"batch {max(0, int(work.batch * room / step.saved))}"
    parts = (parts for parts in range(2, LARGEST_ACCUMULATE + 1) if work.batch % parts == 0)
    accumulate = next((number for number in parts if step.saved / number <= room), None)
    return f"accumulate: {accumulate}" if accumulate is not None else "does not fit"


def _compose_assumptions() -> list[str]:
    arithmetics = (*PRECISIONS.values(), "float64")
    head = ["card", "memory (GB)", "bandwidth (TB/s)", *arithmetics, "launch (µs)"]
    rows = []
    for card in CARDS:
        peaks = [f"{card.peaks[name] / 1e12:g}" if name in card.peaks else "" for name in arithmetics]
        rows.append([card.name, f"{card.memory:g}", f"{card.bandwidth / 1e12:g}", *peaks, f"{1e6 * card.launch:g}"])
    return [
        "## How it was computed",
        "",
        "Each kind of batch runs once on fake tensors (shapes without values), to count the operations that a GPU "
        "would run, their FLOPs, and the bytes that they read and write.",
        "An operation takes the larger of FLOPs / peak and bytes / bandwidth; a batch takes the sum over its "
        "operations, or the host's time to launch them if that is longer.",
        "The launch times are assumed, and so are the rates that operations reach: "
        f"{100 * PEAK_FRACTION:.0f} % of the peak in float32 and float64, {100 * TENSOR_CORE_FRACTION:.0f} % on tensor "
        f"cores (TF32, bfloat16), {100 * BANDWIDTH_FRACTION:.0f} % of the bandwidth.",
        "Peaks (TFLOP/s, without sparsity) and bandwidths are from the vendor's data sheets for SXM modules.",
        "The power series of the couplings, e^S, have the number of terms that suffices if no |S_ij| exceeds 0.2; "
        "for 0.4, a step takes about a third longer.",
        "Compilation, caches and the inefficiency of small kernels are not taken into account, so real hours may "
        "differ by a factor of two.",
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
    parser.add_argument("--jobs", type=int, default=1, help="processes that count")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.manual_seed(0)
    resolved = resolve(chosen.config, chosen.presets, {"preset": chosen.preset})
    projection = Projection(resolved.config, list_work(resolved.config))
    if chosen.jobs > 1:
        projection.count_in_parallel(chosen.jobs)
    write_atomically(chosen.output, compose_page(projection, resolved.preset))


if __name__ == "__main__":
    main()
