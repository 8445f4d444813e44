"""Every reader, on damaged files without a manifest: refused in one line that names the file, or sound numbers.

What is no damage to a reader by itself, such as another digit in a table, is caught by manifests: see test_stages.py.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import random
import shutil
import struct
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load, save
from stages.conftest import ROOT, SmallRun

from nfpi.classifiers.registry import build_trained
from nfpi.config.base import ConfigError
from nfpi.config.flows import TrainingConfig
from nfpi.data.store import read_image_set
from nfpi.model import ClassConditionalFlow
from nfpi.priors.files import load_prior, load_statistics
from nfpi.release import load_release_checkpoint
from nfpi.results.recorded.csv_files import read_csv
from nfpi.results.recorded.predictions import read_predictions
from nfpi.results.recorded.records import read_record
from nfpi.results.recorded.runs import collect
from nfpi.results.tables.building import read_reference, read_table
from nfpi.runs import CANDIDATE, GENERATED, RESIDUALS
from nfpi.runtime.divergence import Diverged, mark_diverged
from nfpi.runtime.faults import describe_fault
from nfpi.runtime.manifests import SUFFIX
from nfpi.runtime.tensors import load_tensors
from nfpi.training.state import TrainingState

from .conftest import SEED, TimeLimit, at_most, count_inputs
from .damage import damage

_SECONDS = 20
"""that a reader may take for a damaged file"""


@dataclass(frozen=True)
class Reader:
    """A file, and what reads it.

    Attributes:
        file: in the results, whose folder is copied.
        read: reads a copy.
        infinite: whether its numbers may be infinite.
    """

    file: Path
    read: Callable[[Path], Any]
    infinite: bool = False


def of_image_set(file: Path) -> Any:
    found = read_image_set(file.parent)
    return found.images, found.labels, found.meta


def of_model(file: Path) -> Any:
    model = ClassConditionalFlow.from_pretrained(file.parent)
    return model.flow.state_dict(), model.prior.mean, model.prior.variance, model.config, model.domain.dtype, model.seed


def of_prior(file: Path) -> Any:
    prior, header = load_prior(file)
    return prior.mean, prior.variance, header


def of_statistics(file: Path) -> Any:
    statistics = load_statistics(file)
    return statistics.count, statistics.mean, statistics.variance, statistics.covariance


def of_classifier(file: Path) -> Any:
    weights, header = load_tensors(file)
    config, model, _ = build_trained(weights, header, file)
    return config.model_dump(mode="json"), model.state_dict(), header


def of_release(file: Path) -> Any:
    flow, prior = load_release_checkpoint(file)
    return flow.state_dict(), prior.mean, prior.variance


@pytest.fixture(scope="session")
def readers(run: SmallRun, table: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Reader]:
    """One for each kind of file."""
    training = TrainingConfig(**run.training)
    steps = load_tensors(run.initial / "state.safetensors")[1]["step"]

    def of_state(file: Path) -> Any:
        state, header = TrainingState.load(file, training, steps, torch.device("cpu"))
        return state.serialize(), header

    def of_metrics(file: Path) -> Any:
        place = file.parent.parent / "collected" / run.identity.folder
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place / "metrics.json")
        try:
            return read_record(file), collect([run.identity], file.parent.parent / "collected")
        except ValueError as error:
            raise type(error)(str(error).replace(str(place / "metrics.json"), str(file))) from None

    marked = tmp_path_factory.mktemp("diverged")
    fault = Diverged(3, 1, "variance", 1e6)
    fault.context = {"seed": 3}
    mark_diverged([marked / name for name in ("prior.safetensors", "config.json", "model.safetensors")], fault)
    generated, candidate = run.locate_folder(GENERATED, 1), run.locate_folder(CANDIDATE, 1)
    image_sets = [
        *(run.splits / "train" / name for name in ("images.npy", "labels.npy")),
        *(generated / name for name in ("images.npy", "labels.npy", "meta.json")),
        run.splits / "test/meta.json",
    ]

    def of_residuals(file: Path) -> Any:
        return read_csv(file, RESIDUALS, infinite=True)

    def of_log(file: Path) -> Any:  # as `nfpi evaluate` reads it: the cells of the initial state are empty
        return read_csv(file, {"seconds": "float64"})["seconds"].dropna().tolist()

    return [
        *(Reader(file, of_image_set) for file in image_sets),
        Reader(run.initial / "state.safetensors", of_state),
        Reader(run.initial / "prior.safetensors", of_prior),
        Reader(run.initial / "statistics.safetensors", of_statistics),
        Reader(run.folder / "fit/prior.safetensors", of_prior),
        Reader(run.folder / "fit/fixed_point.csv", of_residuals, infinite=True),
        Reader(run.folder / "log.csv", of_log),
        Reader(run.model / "config.json", of_model),
        Reader(run.model / "model.safetensors", of_model),
        Reader(run.folder / "metrics.json", of_metrics),
        Reader(run.folder / "predictions.npz", lambda file: vars(read_predictions(file))),
        Reader(candidate / "model.safetensors", of_classifier),
        Reader(candidate / "metrics.json", read_record),
        Reader(run.root / run.tested.folder / "metrics.json", read_record),
        Reader(table / "table2.csv", read_table),
        Reader(ROOT / "workflow/reference/paper.csv", read_reference),
        Reader(checkpoint, of_release),
        Reader(marked / "prior.safetensors", of_prior),
        Reader(marked / "config.json", of_model),
    ]


def test_a_damaged_file_is_refused_in_one_line_or_gives_sound_numbers(readers, tmp_path):
    total = count_inputs(4000)
    others = [reader.file.read_bytes() for reader in readers]
    counts: Counter[str] = Counter()
    failures = []
    for number, reader in enumerate(readers):
        file, content = copied(reader, tmp_path / str(number)), reader.file.read_bytes()
        expected = digest(outcome(reader, file)[1])
        for index in range(total // len(readers)):
            rng = random.Random(f"{SEED} {number} {index}")
            name, damaged = damage(rng, file.suffix, content, others)
            file.write_bytes(damaged)
            kind, detail = outcome(reader, file)
            if kind == "read":
                kind = "same" if digest(detail) == expected else "other"
                if not is_sound(detail, reader.infinite):
                    kind = "not finite"
            counts[kind] += 1
            if kind not in ("refused", "same", "other"):
                failures.append(f"{reader.file} damaged by {name}, {SEED} {number} {index}: {kind}: {detail}")
        file.write_bytes(content)
    print(f"\n{counts.total()} damaged files read: {dict(counts)}")
    assert counts.total() >= total - len(readers)
    assert counts["refused"] > total / 2
    assert not failures, "\n".join(failures[:20])


def replaced(content: bytes) -> Callable[[bytes], bytes]:
    return lambda _: content


def edited(*keys: str, value: Any = None, removed: bool = False) -> Callable[[bytes], bytes]:
    """JSON with another value, or none, at a place."""

    def edit(content: bytes) -> bytes:
        record = json.loads(content)
        place = record
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value
        if removed:
            del place[keys[-1]]
        return json.dumps(record).encode()

    return edit


def with_header(edit: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """A safetensors file with another header."""

    def edit_header(content: bytes) -> bytes:
        length = struct.unpack("<Q", content[:8])[0]
        header = json.loads(content[8 : 8 + length])["__metadata__"]["nfpi"]
        return save(load(content), {"nfpi": edit(header.encode()).decode()})

    return edit_header


def as_archive(content: bytes) -> bytes:
    """An array as NumPy's archive."""
    file = io.BytesIO()
    np.savez(file, np.load(io.BytesIO(content)))
    return file.getvalue()


def with_offset(offset: int) -> Callable[[bytes], bytes]:
    """A zip archive that gives another place of its directory: in its last record, and in that of large archives."""

    def edit(content: bytes) -> bytes:
        content = content[:-6] + struct.pack("<I", offset) + content[-2:]
        large = content.rfind(b"PK\x06\x06")
        return content if large < 0 else content[: large + 48] + struct.pack("<Q", offset) + content[large + 56 :]

    return edit


DEEP = b'{"a":' * 100_000
KNOWN = [
    *(("model/config.json", edited(key, removed=True)) for key in ("data", "seed", "training", "flow")),
    *(("state.safetensors", with_header(edited(key, removed=True))) for key in ("seed", "flow", "step")),
    *(("meta.json", edited(key)) for key in ("classes", "counts", "shape", "dtype", "sha256", "extra")),
    *((name, replaced(text)) for name in ("meta.json", "config.json", "metrics.json") for text in (b"", DEEP)),
    *(("metrics.json", replaced(text)) for text in (b"{}", b"[]", b"null")),
    *((name, as_archive) for name in ("images.npy", "labels.npy")),
    *((name, with_offset(at)) for name in ("predictions.npz", "*.ckpt") for at in (0, 1, 2**31, 2**32 - 1)),
    *((name, replaced(b"")) for name in ("*.csv", "*.npy", "*.npz", "*.safetensors", "*.ckpt")),
    ("*.csv", replaced(b"\n\n")),
    ("*.csv", lambda content: content + b"1,2\n"),
    ("*.csv", lambda content: content.rstrip() + b",1\n"),
    ("*.safetensors", with_header(replaced(DEEP))),
    ("temperature=1/model.safetensors", with_header(edited("classifier", "colour", value="red"))),
    ("temperature=1/model.safetensors", with_header(edited("classifier", "model", value="train-flow"))),
]
"""Files, and damages of them that ended in a traceback once."""


@pytest.mark.parametrize(("name", "edit"), KNOWN)
def test_damages_that_were_no_line_once_are_refused(readers, name, edit, tmp_path):
    found = [reader for reader in readers if reader.file.match(name)]
    assert found
    for number, reader in enumerate(found):
        file = copied(reader, tmp_path / str(number))
        file.write_bytes(edit(file.read_bytes()))
        kind, detail = outcome(reader, file)
        assert kind == "refused", (reader.file, detail)


@pytest.mark.parametrize("name", ["images.npy", "labels.npy"])
def test_every_bit_of_the_header_of_an_array_counts(readers, name, tmp_path):
    reader = next(reader for reader in readers if reader.file.name == name)
    file = copied(reader, tmp_path)
    content, expected = file.read_bytes(), digest(outcome(reader, file)[1])
    for bit in range(8 * 128):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        kind, detail = outcome(reader, file)
        assert kind == "refused" or (kind == "read" and digest(detail) == expected), (bit, detail)


def copied(reader: Reader, folder: Path) -> Path:
    """The file of a reader, in a copy of its folder without manifests."""
    folder = folder / "of"
    folder.mkdir(parents=True)
    for file in reader.file.parent.iterdir():
        if file.is_file() and not file.name.endswith(SUFFIX):
            shutil.copy(file, folder)
    return folder / reader.file.name


def outcome(reader: Reader, file: Path) -> tuple[str, Any]:
    """What became of reading a file: `read` with its content, `refused` with the line, or how it failed."""
    try:
        with at_most(_SECONDS):
            return "read", reader.read(file)
    except Diverged as fault:
        return "read", (fault.record, str(fault))
    except (Exception, TimeLimit) as error:
        line = None if isinstance(error, TimeLimit) else describe_fault(error)
        if line is None:
            return "traceback", "".join(traceback.format_exception(error)[-3:])
        named = str(file.parent) in line and "\n" not in line
        return ("refused", line) if named or isinstance(error, ConfigError) else ("no line that names the file", line)


def digest(content: Any) -> str:
    """Of all that was read, to the last bit."""
    total = hashlib.sha256()
    for part in parts_of(content):
        total.update(part if isinstance(part, bytes) else repr(part).encode("utf-8", "surrogatepass"))
        total.update(b"\x00")
    return total.hexdigest()


def is_sound(content: Any, infinite: bool) -> bool:
    """Whether all numbers are finite; cells of a table may be unknown."""
    if isinstance(content, pd.DataFrame):
        return infinite or not np.isinf(content.select_dtypes("float").to_numpy()).any()
    if isinstance(content, torch.Tensor):
        return not content.is_floating_point() or bool(content.isfinite().all())
    if isinstance(content, np.ndarray):
        return content.dtype.kind != "f" or bool(np.isfinite(content).all())
    if isinstance(content, float):
        return math.isfinite(content)
    if isinstance(content, Mapping):
        return all(is_sound(value, infinite) for value in content.values())
    if isinstance(content, (list, tuple)):
        return all(is_sound(value, infinite) for value in content)
    return True


def parts_of(content: Any) -> Iterator[Any]:
    """Bytes and texts of a content."""
    if isinstance(content, torch.Tensor):
        content = content.detach().view(torch.uint8).numpy() if content.dim() else content.item()
    if isinstance(content, np.ndarray):
        yield from (str(content.dtype), content.shape, np.ascontiguousarray(content).tobytes())
    elif isinstance(content, pd.DataFrame):
        yield content.to_csv()
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield key
            yield from parts_of(value)
    elif isinstance(content, (list, tuple)):
        yield len(content)
        for value in content:
            yield from parts_of(value)
    else:
        yield content
