"""Each fault ends in one line on stderr and its status, and touches nothing that was made before."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nfpi.config.metrics import METRICS, register_metric
from nfpi.data.writer import write_image_set
from nfpi.runtime.checkpoints import Checkpoints

from .conftest import ROOT, SmallRun, call, check_call, format_options

FLOW = {"num_flows": [1, 1], "num_blocks": [0, 0], "hidden_channels": [8, 8]}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """Existing results: splits, an initial state, a fit, a trained flow, its metrics, images."""
    run = SmallRun(
        tmp_path_factory.mktemp("made"), weight=10, images={"train_per_class": 12, "test_per_class": 4}, flow=FLOW
    )
    run.begin()
    run.train()
    check_call(*run.make_command("generate"))
    return run


def prepare(folder: Path, output: Path, **settings: object) -> tuple[str, ...]:
    """Arguments of the preparation of image files."""
    dataset = {"source": "imagefolder", "folder": str(folder), "validation_fraction": 0.25, **settings}
    options = {"name": "toy", "dataset": dataset, "download_folder": output.parent / "downloads", "output": output}
    return ("prepare-data", *format_options(**options))


def contents(folder: Path) -> dict[str, tuple[str, int]]:
    """Every file with its digest and the time it was written."""
    return {
        path.relative_to(folder).as_posix(): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".digest-")
    }


@pytest.fixture
def refused(made: SmallRun, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., str]]:
    """Run a stage that must fail; the line it ends with. What was made stays as it was."""
    before = contents(made.root)

    def run(*arguments: object, status: int = 1) -> str:
        capsys.readouterr()
        assert call(*arguments) == status
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("nfpi: error: "), captured.err
        assert captured.err.count("\n") == 1, captured.err
        return captured.err.strip()

    yield run
    assert contents(made.root) == before


def fail_in_a_process(made: SmallRun, action: Callable[[], int]) -> str:
    """The last line of what must fail in a process of its own, whose limits it changes; results stay as they were."""
    before = contents(made.root)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writing, 2)
        sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", 0), write_through=True)
        try:
            os._exit(action())
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(99)
    os.close(writing)
    with os.fdopen(reading) as lines:
        text = lines.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1, text
    assert "Traceback" not in text
    assert contents(made.root) == before
    return text.strip().splitlines()[-1]


# ---- images and archives ------------------------------------------------------------------------------------


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """split/class/image, two classes."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 2)):
        for name in ("a", "b"):
            (tmp_path / "files" / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 256, (8, 8, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "files" / split / name / f"{index}.png")
    return tmp_path / "files"


def corrupt(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def draw_other_size(path: Path) -> None:
    Image.fromarray(np.zeros((6, 9, 3), np.uint8)).save(path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"no image"),
        corrupt,
        draw_other_size,
    ],
    ids=["truncated", "emptied", "text", "corrupted", "other size"],
)
def test_a_damaged_image_is_named(made, image_folder, refused, damage):
    path = image_folder / "train/b/3.png"
    damage(path)
    assert f"{path}: " in refused(*prepare(image_folder, made.splits))


@pytest.mark.parametrize("form", ["zip", "gztar"])
@pytest.mark.parametrize("damage", ["truncated", "corrupted"])
def test_a_damaged_archive_is_named(made, image_folder, tmp_path, refused, form, damage):
    archive = Path(shutil.make_archive(str(tmp_path / "a"), form, image_folder))
    content = bytearray(archive.read_bytes())
    if damage == "truncated":
        content = content[: len(content) // 2]
    else:
        content[len(content) // 3 : len(content) // 3 + 40] = bytes(40)
    archive.write_bytes(content)
    assert f"{archive}: " in refused(*prepare(archive, made.splits))
    assert not [path for path in (made.splits.parent / "downloads").glob("*") if not path.name.startswith(".digest-")]


@pytest.mark.parametrize(
    ("form", "name"),
    [(form, name) for form in ("zip", "tar") for name in ("../escaped", "train/../../escaped", "/tmp/nfpi-escaped")],
)
def test_an_archive_with_a_path_outside_its_folder_is_refused(made, tmp_path, refused, write_archive, form, name):
    archive = tmp_path / f"a.{form}"
    write_archive(archive, name)
    assert f"{archive}: " in refused(*prepare(archive, made.splits))
    assert not list(made.root.rglob("*escaped*"))
    assert not list(tmp_path.rglob("*escaped*"))
    assert not Path("/tmp/nfpi-escaped").exists()


# ---- image sets ---------------------------------------------------------------------------------------------


@pytest.fixture
def splits(made: SmallRun, tmp_path: Path) -> Path:
    """A copy of the splits, to be damaged."""
    shutil.copytree(made.splits, tmp_path / "splits")
    return tmp_path / "splits"


def relabel(folder: Path, labels: np.ndarray) -> None:
    """Labels that the sha256 of meta.json agrees with, as a program that writes the form itself could leave them."""
    (folder.parent / "data.manifest.json").unlink(missing_ok=True)
    np.save(folder / "labels.npy", labels)
    meta = json.loads((folder / "meta.json").read_text())
    meta["counts"] = {name: int((labels == index).sum()) for index, name in enumerate(meta["classes"])}
    meta["sha256"]["labels.npy"] = hashlib.sha256((folder / "labels.npy").read_bytes()).hexdigest()
    (folder / "meta.json").write_text(json.dumps(meta))


@pytest.mark.parametrize(
    ("of", "label", "named"),
    [([3], -1, "labels.npy: "), ([3], 10, "labels.npy: "), (range(12), 5, "class 4: "), (range(11), 5, "class 4: ")],
    ids=["negative", "too large", "no image", "one image"],
)
def test_labels_that_are_out_of_range_or_leave_a_class_without_variance_are_refused(
    made, splits, refused, of, label, named
):
    """In a set that was written by another program: `prepare-data` itself refuses to write one."""
    labels = np.load(splits / "train/labels.npy")
    labels[np.flatnonzero(labels == 4)[of]] = label
    relabel(splits / "train", labels)
    assert named in refused(*made.make_command("start-flow", data=splits))


def test_a_size_that_does_not_divide_is_refused(made, tmp_path, refused):
    generator = np.random.default_rng(0)
    for split in ("train", "validation"):
        images, labels = generator.integers(0, 256, (8, 6, 6, 1), np.uint8), np.arange(8) % 2
        write_image_set(tmp_path / "odd" / split, images, labels, ["a", "b"], name="odd", flip=True)
    assert "multiple" in refused(*made.make_command("start-flow", data=tmp_path / "odd"))


# ---- places -------------------------------------------------------------------------------------------------


def test_a_results_folder_that_cannot_be_written_is_refused_before_the_work(made, tmp_path):
    for folder in tmp_path.parents:  # whoever is to try must come here
        if folder.stat().st_uid == os.getuid() and folder.name.startswith("pytest"):
            folder.chmod(folder.stat().st_mode | 0o011)
    for folder in (made.root, made.root.parent, *(path for path in made.root.rglob("*") if path.is_dir())):
        folder.chmod(folder.stat().st_mode | 0o055)
    (tmp_path / "results").mkdir(mode=0o555)
    tmp_path.chmod(0o555)

    def act() -> int:
        if os.getuid() == 0:
            os.setresuid(65534, 65534, 65534)
        return call(*made.make_command("train-flow", output=tmp_path / "results/flow"))

    assert fail_in_a_process(made, act).startswith(f"nfpi: error: {tmp_path}/results: ")


def test_a_file_in_the_place_of_a_folder_is_refused(made, refused):
    assert f"{made.folder}/metrics.json: " in refused(
        *made.make_command("train-flow", output=made.folder / "metrics.json/flow")
    )


def test_a_folder_of_other_things_is_not_replaced(made, refused):
    assert f"{made.initial}: " in refused(*made.make_command("generate", output=made.initial))


# ---- memory and disk ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["train-flow", "generate"])
def test_a_full_disk_is_one_line_and_leaves_no_half_file(made, tmp_path, stage):
    """A limit on the size of files stands in for the disk, which a process cannot fill alone."""
    output = tmp_path / "output"
    changes = {"generate": {"per_class": 100}}.get(stage, {})
    arguments = made.make_command(stage, output=output, **changes)

    def act() -> int:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, 9_000))
        return call(*arguments)

    assert re.search(rf"^nfpi: error: {tmp_path}/\S+: File too large$", fail_in_a_process(made, act))
    assert not output.exists() or list(output.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] in ([], ["output"])


def test_out_of_memory_is_one_line(made):
    def act() -> int:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))
        return call(*made.make_command("start-flow", flow={"num_blocks": [0, 1], "hidden_channels": [8, 4000]}))

    assert fail_in_a_process(made, act).startswith("nfpi: error: out of memory ")


def hoard() -> None:
    """Fill the memory with small objects, so that little is left to report it."""
    kept: list[object] = []
    while True:
        kept = [kept, bytes(4096)]  # with less, Python itself reports what it cannot finalize


def exhaust_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize("exhaust", [hoard, lambda: torch.empty(2**50), exhaust_gpu], ids=["objects", "tensor", "GPU"])
def test_memory_exhausted_in_a_training_is_one_line_and_its_checkpoint_stays(made, tmp_path, exhaust):
    command = made.make_command("train-flow", output=tmp_path / "flow", training={"checkpoint_minutes": 1e-9})
    save = Checkpoints.save

    def act() -> int:
        def save_and_exhaust(checkpoints: Checkpoints, *content: object) -> None:
            save(checkpoints, *content)
            exhaust()

        Checkpoints.save = save_and_exhaust
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**27, used + 2**27))
        return call(*command)

    assert fail_in_a_process(made, act).startswith("nfpi: error: out of memory ")
    check_call(*command)
    assert (tmp_path / "flow/model/model.safetensors").read_bytes() == (made.model / "model.safetensors").read_bytes()


def test_a_gpu_that_torch_cannot_use_is_one_line(made, refused, monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("torch uses the GPU")
    monkeypatch.setenv("SLURM_JOB_GPUS", "0")
    assert "SLURM_JOB_GPUS=0" in refused(*made.make_command("generate"))


# ---- numbers ------------------------------------------------------------------------------------------------


DIVERGING = {"learning_rate": 1e6, "warmup_steps": 0, "gradient_clip": 0, "checkpoint_minutes": 1e-9}


def test_a_training_that_diverged_is_a_row_of_the_table(made, tmp_path, caplog):
    root = tmp_path / "results"
    output = root / made.identity.folder
    check_call(*made.make_command("train-flow", training=DIVERGING, output=output))
    (line,) = (record.message for record in caplog.records if record.levelname == "WARNING")
    assert re.search(r"the loss is not finite by step \d+ \(seed 3\)", line)
    files = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
    assert files >= {"log.csv", "model/config.json", "model/model.safetensors"}
    assert not [file for file in files if "checkpoint" in file]  # what it kept would lead to the same end

    check_call(*made.make_command("evaluate", model=output / "model", history=output / "log.csv", output=output))
    check_call(*made.make_command("generate", model=output / "model", output=output / "images"))
    record = json.loads((output / "metrics.json").read_text())["diverged"]
    assert record["message"] == line
    assert (record["quantity"], record["lambda"]) == ("loss of the flow", made.weight)
    assert json.loads((output / "images/meta.json").read_text())["diverged"] == record
    paths = {"reference": ROOT / "workflow/reference/paper.csv", "root": root, "output": tmp_path}
    check_call("table", *format_options(name="t", table={}, rows=[made.row], **paths))
    assert f",diverged: loss of the flow at step {record['iteration']}," in (tmp_path / "t.csv").read_text()


def test_a_metric_that_no_run_has_is_named(complete_run, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(METRICS, "_variants", dict(METRICS._variants))
    register_metric("new", label="New")(lambda log_prob, labels: 0.0)
    paths = {"reference": ROOT / "workflow/reference/paper.csv", "root": complete_run.root, "output": tmp_path}
    table = {"title": "Small", "metrics": ["nf_acc", "new"]}
    check_call("table", *format_options(name="t", table=table, rows=[complete_run.row], **paths))
    assert "t: no run has new; `snakemake t -R evaluate" in caplog.text
    assert "nf_acc" not in caplog.text


def test_an_initial_training_that_diverged_is_that_of_every_weight(made, tmp_path):
    check_call(
        *made.make_command("start-flow", training=DIVERGING | {"fit_after_epochs": 2}, output=tmp_path / "initial")
    )
    check_call(*made.make_command("fit-prior", initial=tmp_path / "initial", output=tmp_path / "fit"))
    prior = tmp_path / "fit/prior.safetensors"
    check_call(*made.make_command("train-flow", initial=tmp_path / "initial", prior=prior, output=tmp_path / "flow"))
    history = tmp_path / "flow/log.csv"
    files = {"model": tmp_path / "flow/model", "history": history, "initial": tmp_path / "initial"}
    check_call(*made.make_command("evaluate", **files, output=tmp_path / "flow"))
    record = json.loads((tmp_path / "flow/metrics.json").read_text())["diverged"]
    assert record["quantity"] == "loss of the flow"


# ---- the table ----------------------------------------------------------------------------------------------


def test_every_line_of_the_table_names_tests_that_exist():
    table = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("\n## Faults and their tests\n")[2]
    rows = [line for line in table.splitlines() if line.startswith("| ") and not line.startswith("| fault |")]
    named = set(re.findall(r"`(test_\w+)`", table))
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    known = {name for source in sources for name in re.findall(r"^def (test_\w+)\(", source, re.MULTILINE)}
    assert named - known == set()
    assert rows
    assert all(len(row.split("|")) == 4 and "`test_" in row for row in rows)
