"""Every stage, on damaged outputs of the stages before it and on their damaged manifests.

It refuses in one line that names the file, with a status that is not 0, or makes what it makes of sound files, bit for
bit. What differs from call to call, measured times and what a manifest says of a missing one, is not compared.
"""

from __future__ import annotations

import csv
import hashlib
import html
import io
import json
import random
import shutil
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from stages.conftest import SmallRun, call, format_options

from nfpi.config.resolution import resolve
from nfpi.results.recorded.calls import StoredSettings, write_planned, write_settings
from nfpi.runs import CANDIDATE, GENERATED
from nfpi.runtime.manifests import SUFFIX

from .conftest import SEED, TimeLimit, at_most, count_inputs, make_table_options
from .damage import damage

ROOT = Path(__file__).parents[2]
DEMO = resolve(ROOT / "config.yaml", ROOT / "presets", {"preset": "demo"}).config

_SECONDS = 60
"""that a stage may take for a damaged file"""
_IMAGES = ("images.npy", "labels.npy", "meta.json")
_MODEL = ("model/config.json", "model/model.safetensors", f"model{SUFFIX}")
_TIMES = ("seconds", "seconds_per_1000_samples")


@dataclass(frozen=True)
class Step:
    """A stage, and what it reads.

    Attributes:
        name: of the stage, and what it does.
        make_command: returns its arguments for a folder of outputs.
        files: that it reads, and their manifests, below the folder of results.
    """

    name: str
    make_command: Callable[[Path], tuple[object, ...]]
    files: tuple[Path, ...]


@pytest.fixture(scope="module")
def steps(run: SmallRun, table: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Step]:
    """Of a copy of the results."""
    root = tmp_path_factory.mktemp("damaged") / "results"
    shutil.copytree(run.root, root)
    run = replace(run, root=root)
    generated, candidate = run.locate_folder(GENERATED, 1), run.locate_folder(CANDIDATE, 1)

    def of_run(stage: str, *files: Path) -> Step:
        return Step(stage, lambda output: run.make_command(stage, output=output), files)

    def figure(name: str, settings: dict[str, Any], reads: dict[str, Any], what: str, *files: Path) -> Step:
        read = [str(file) for file in files if not file.name.endswith(SUFFIX)]
        options: dict[str, Any] = {"name": name, "figure": settings, "reads": reads, "files": {what: read}}
        return Step(f"figure {name}", lambda output: ("figure", *format_options(**options, output=output)), files)

    def within(folder: Path, *names: str) -> list[Path]:
        return [folder / name for name in names]

    def splits(*names: str) -> list[Path]:
        return [run.splits / f"data{SUFFIX}", *(run.splits / name / file for name in names for file in _IMAGES)]

    initial, fit = f"initial-state{SUFFIX}", within(run.folder / "fit", "prior.safetensors", f"prior{SUFFIX}")
    model = within(run.folder, *_MODEL)
    metrics = within(run.folder, "metrics.json", f"metrics{SUFFIX}")
    metrics += within(root / run.tested.folder, "metrics.json", f"metrics{SUFFIX}")
    images = within(generated, *_IMAGES, f"generated-images{SUFFIX}")
    classifier = within(candidate, "model.safetensors", "metrics.json", f"classifier{SUFFIX}")
    tabulated = within(root / "tables", "table2.csv", f"table2{SUFFIX}")
    residuals = within(run.folder / "fit", "fixed_point.csv", f"prior{SUFFIX}")
    return [
        of_run("start-flow", *splits("train", "validation")),
        of_run("fit-prior", *within(run.initial, "prior.safetensors", "statistics.safetensors", initial)),
        of_run("train-flow", *within(run.initial, "state.safetensors", initial), *fit, *splits("train", "validation")),
        of_run("evaluate", *model, run.folder / "log.csv", *splits("validation", "test")),
        of_run("generate", *model),
        of_run("augment", *model, *splits("train")),
        of_run("train-classifier", *images, *splits("validation")),
        of_run("test-classifier", *classifier, *splits("test")),
        Step(
            "import-model",
            lambda output: ("import-model", checkpoint, *format_options(data=run.splits, output=output)),
            (run.splits / f"data{SUFFIX}", run.splits / "train/meta.json"),
        ),
        Step(
            "export",
            lambda output: ("export", *format_options(images=generated, output=output / "images")),
            tuple(images),
        ),
        Step("table", lambda output: ("table", *make_table_options(run, output)), tuple(metrics)),
        figure("samples", {"dataset": "digits", "lambda": 100, "temperatures": [1.0]}, {}, "model", *model),
        figure("residuals", {"dataset": "digits", "lambdas": [100]}, {"prior": {}}, "iterations", *residuals),
        figure("accuracy_against_weight", {}, {}, "table", *tabulated),
    ]


def test_a_stage_refuses_damaged_files_in_one_line_or_makes_the_same(steps, tmp_path):
    expected = []
    for number, step in enumerate(steps):
        status, said = carried_out(step.make_command(tmp_path / f"sound/{number}"))
        assert status == 0, said
        expected.append(contents(tmp_path / f"sound/{number}"))

    def outcome(number: int, file: Path) -> str:
        output = tmp_path / "new"
        status, said = carried_out(steps[number].make_command(output))
        made = contents(output)
        shutil.rmtree(output, ignore_errors=True)
        if status == 0:
            return "same" if made == expected[number] else f"other outputs\n{said}"
        lines = [line for line in said.splitlines() if line.startswith("nfpi: error: ")]
        if not said.endswith("\n") or len(lines) != 1 or "Traceback" in said:
            return f"more than one line\n{said}"
        if made:
            return f"outputs of a stage that failed: {sorted(made)}\n{said}"
        return "refused" if names(lines[0], file) else f"no line that names the file\n{said}"

    counts = tried(
        [(number, file) for number, step in enumerate(steps) for file in step.files], count_inputs(60), outcome
    )
    assert counts["refused"] > counts.total() / 2


def test_a_page_says_what_is_damaged_or_shows_the_same(run, table, tmp_path):
    root = tmp_path / "results"
    shutil.copytree(run.root, root)
    write_planned(root, [run.identity])
    write_settings(root, StoredSettings.of("demo", DEMO))
    page, command = root / "index.html", ("page", root)
    assert carried_out(command)[0] == 0
    expected = page.read_bytes()

    def outcome(_: int, file: Path) -> str:
        status, said = carried_out(command)
        if status != 0:
            return f"status {status}\n{said}"
        if page.read_bytes() == expected:
            return "same"
        faults = [line for line in html.unescape(page.read_text()).splitlines() if ": expected" in line]
        return "said" if any(names(line, file.relative_to(root)) for line in faults) else "another page"

    files = [
        *root.glob("tables/table2.csv"),
        *(path for path in root.rglob("*") if path.name in ("metrics.json", "predictions.npz", "log.csv")),
        *root.rglob(f"*{SUFFIX}"),
        *root.rglob("meta.json"),
    ]
    counts = tried([(0, file) for file in sorted(files)], count_inputs(30), outcome)
    assert counts["said"] > counts.total() / 4


def tried(places: list[tuple[int, Path]], total: int, outcome: Callable[[int, Path], str]) -> Counter[str]:
    """Damage the files in turn, each again and again, and count what becomes of that.

    Args:
        places: number of a step, and a file that it reads.
        total: number of damaged files.
        outcome: what becomes of a step while the file is damaged, in a word; anything longer is a failure.
    """
    others = [file.read_bytes() for _, file in places]
    counts: Counter[str] = Counter()
    failures = []
    for index in range(total):
        number, file = places[index % len(places)]
        content = file.read_bytes()
        kind, damaged = damaged_or_missing(random.Random(f"{SEED} {index}"), file, content, others)
        try:
            if damaged is None:
                file.unlink()
            else:
                file.write_bytes(damaged)
            said = outcome(number, file)
        finally:
            file.write_bytes(content)
        counts[said.partition("\n")[0]] += 1
        if " " in said:
            failures.append(f"{file}: {kind}, {SEED} {index}: {said}")
    print(f"\n{counts.total()} damaged files: {dict(counts)}")
    assert not failures, "\n".join(failures[:20])
    return counts


def damaged_or_missing(rng: random.Random, file: Path, content: bytes, others: list[bytes]) -> tuple[str, bytes | None]:
    """How a file was damaged, and its content; None: it is removed."""
    if rng.random() < 0.04:
        return "missing", None
    return damage(rng, file.suffix, content, others)


def carried_out(command: tuple[object, ...]) -> tuple[int, str]:
    """Status of a command, and what it printed on stderr; of an error that is not caught, the traceback."""
    printed = io.StringIO()
    try:
        with at_most(_SECONDS), redirect_stdout(io.StringIO()), redirect_stderr(printed):
            return call(*command), printed.getvalue()
    except (Exception, TimeLimit):
        return 1, traceback.format_exc()


def names(text: str, file: Path) -> bool:
    """Whether a text names a file, or the folder of it and what is damaged there."""
    return str(file.parent) in text and file.name in text


def contents(folder: Path) -> dict[str, str]:
    """SHA-256 of all files that a stage wrote, by name, without the times in them; manifests are left out."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(SUFFIX)]
    return {str(path.relative_to(folder)): hashlib.sha256(without_times(path)).hexdigest() for path in files}


def without_times(path: Path) -> bytes:
    """The content of a file but for what it says of how long things took."""
    if path.name == "metrics.json":
        record = json.loads(path.read_text())
        for values in (record, record["metrics"]):
            for name in _TIMES:
                values.pop(name, None)
        return json.dumps(record).encode()
    if path.name == "log.csv":
        rows = list(csv.DictReader(path.open(newline="")))
        return json.dumps([{key: cell for key, cell in row.items() if key not in _TIMES} for row in rows]).encode()
    return path.read_bytes()
