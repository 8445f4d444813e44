"""The command line itself: help, options, and what it says of wrong ones."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import nfpi.stages.execution
from nfpi.cli import main
from nfpi.runtime.signals import INTERRUPTS

from .conftest import STAGE, SmallRun, call, read_error_line

HEAVY = ("torch", "torchvision", "pandas", "matplotlib", "sklearn", "timm", "lightning_fabric", "numpy")
NFPI = Path(sys.executable).parent / "nfpi"


# ---- help ---------------------------------------------------------------------------------------------------


def test_help_answers_without_heavy_imports():
    """One process asks for all of them: what one imported, the next would find."""
    program = f"""
import contextlib, io, sys
from nfpi.cli import main
for arguments in [["--help"], [], ["--version"], *([stage, "--help"] for stage in {list(STAGE)!r})]:
    text = io.StringIO()
    try:
        with contextlib.redirect_stdout(text):
            status = main(arguments)
    except SystemExit as end:
        status = end.code
    assert status == 0, arguments
    expected = "nfpi " if "--version" in arguments else "usage: nfpi " + " ".join(arguments).replace("--help", "")
    assert text.getvalue().startswith(expected), text.getvalue()
    loaded = [name for name in {HEAVY!r} if name in sys.modules]
    assert not loaded, (arguments, loaded)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_is_printed_where_the_locale_has_no_greek_letters():
    environment = os.environ | {"PYTHONIOENCODING": "latin-1", "LC_ALL": "C"}
    done = subprocess.run([NFPI, "fit-prior", "--help"], capture_output=True, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\u03bb" in done.stdout


# ---- options ------------------------------------------------------------------------------------------------


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    """The stage that a command line makes; it does not run."""

    def parse(*arguments: str) -> object:
        seen: list[object] = []
        with monkeypatch.context() as patch:
            patch.setattr(nfpi.stages.execution, "execute", seen.append)
            assert main(list(arguments)) == 0
        (stage,) = seen
        return stage

    return parse


DIGITS = ("--name", "digits", "--dataset", json.dumps({"source": "digits", "test_fraction": 0.2}))
START = ("start-flow", "--data", "d", "--output", "o")
FIT = ("fit-prior", "--initial", "i", "--output", "o")
TABLE = ("table", "--name", "t", "--reference", "r", "--root", ".", "--output", "o", "--rows", "[]")
RUN = {"dataset": "digits", "flow": "mef", "prior": "fpi", "lambda": 1, "seed": 0}


@pytest.mark.parametrize(
    "arguments",
    [
        ("--training", '{"epochs": 7, "augmentation": "flip"}', "--training.augmentation", "shift"),
        ("--training.epochs=7", "--training.augmentation=shift"),
    ],
)
def test_groups_as_json_and_single_settings(parsed, arguments):
    stage = parsed(*START, *arguments)
    assert (stage.training.epochs, stage.training.augmentation, stage.training.batch_size) == (7, "shift", 512)


def test_settings_of_a_variant(parsed):
    """Its own settings stand in the JSON text of the block that selects it."""
    stage = parsed(*FIT, "--weight", "1e4")
    assert (stage.prior.method, stage.prior.fit_mean, stage.weight) == ("fixed_point", True, 10000)
    stage = parsed(*FIT, "--weight", "1", "--prior", '{"fit_mean": false}')
    assert (stage.prior.fit_mean, stage.prior.fit_variance) == (False, True)
    stage = parsed(*START, "--flow", '{"kind": "glow"}')
    assert stage.flow.kind == "glow"
    assert not hasattr(stage.flow, "coupling")


@pytest.mark.parametrize("arguments", [("--no-dataset.flip",), ("--dataset", '{"flip": false}')])
def test_switches(parsed, arguments):
    assert parsed("prepare-data", "--output", "o").dataset.flip is True
    assert parsed("prepare-data", "--output", "o", *arguments).dataset.flip is False


@pytest.mark.parametrize("arguments", [("--metrics", "ece", "--metrics", "mine"), ("--metrics", '["ece", "mine"]')])
def test_lists(parsed, arguments):
    assert parsed("evaluate", "--data", "d", "--model", "m", "--output", "o", *arguments).metrics == ["ece", "mine"]


def test_nothing_is_taken_from_the_environment(parsed, monkeypatch):
    for name, value in {"SEED": "5", "START_FLOW__SEED": "7", "NFPI_SEED": "8", "TRAINING__EPOCHS": "9"}.items():
        monkeypatch.setenv(name, value)
        monkeypatch.setenv(name.lower(), value)
    stage = parsed(*START)
    assert (stage.seed, stage.training.epochs) == (0, 500)


ODD = ["3", "007", "1e5", "back\\slash", "[x]", "null", "ä λ", "\udcff.png"]


def test_files_are_taken_to_the_letter(parsed):
    command = parsed("classify", "model", *ODD)
    assert (command.model, command.images) == ("model", [Path(word) for word in ODD])
    assert parsed("classify", "model", "a", "--", "--resize").images == [Path("a"), Path("--resize")]
    command = parsed("test-classifier", "--data", "d", "--real-labels", "--output", "o", *ODD)
    assert command.candidates == [Path(word) for word in ODD]


def test_a_path_that_exists_may_have_commas(parsed, tmp_path):
    for name in ("a, b.png", "c"):
        (tmp_path / name).touch()
    paths = [str(tmp_path / name) for name in ("a, b.png", "c", "absent", "a, b.png")]
    assert parsed("classify", "model", *paths).images == list(map(Path, paths))


@pytest.mark.parametrize(
    "arguments",
    [
        ("--resize", "model", "--output", "c", "a", "b"),
        ("--output", "c", "--resize", "--", "model", "a", "b"),
    ],
)
def test_options_stand_anywhere(parsed, arguments):
    command = parsed("classify", *arguments)
    assert (command.model, command.images, command.output) == ("model", [Path("a"), Path("b")], Path("c"))
    assert command.resize


@pytest.mark.parametrize("words", [("3", '"a, b"'), ('3,"a, b"',)])
def test_an_option_takes_several_words(parsed, words):
    command = parsed("sample", "model", "--classes", *words, "--output", "x.png")
    assert (command.model, command.classes, command.output) == ("model", ["3", "a, b"], Path("x.png"))


@pytest.mark.parametrize("ascii_only", [True, False])
def test_rows_are_read_as_json(parsed, ascii_only):
    labels = ["λ = 0", 'random means, Σ = "I"', "a\\b", "[x]", "{y}"]
    rows = [{"experiment": 0, "dataset": "digits", "label": label, "flow_runs": [RUN]} for label in labels]
    for some in (rows, rows[:1]):
        parsed_rows = parsed(*TABLE[:-1], json.dumps(some, ensure_ascii=ascii_only), "--table", "{}").rows
        assert [row.label for row in parsed_rows] == [row["label"] for row in some]


# ---- wrong options ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*START, "--training", '{"epohcs": 3}'), "training.epohcs' (did you mean 'epochs'?)"),
        ((*START, "--training.epochs", "many"), "training.epochs: "),
        ((*START, "--training", '{"epochs": 3'), """start-flow: expected JSON, received '{"epochs": 3'"""),
        ((*START, "--flow", '{"kind": "gllow"}'), "(did you mean 'glow'?)"),
        ((*FIT, "--weight=-1"), "weight: "),
        ((*FIT, "--weight=1", "--prior", '{"weight": 1}'), "unknown key 'fit-prior.prior.weight'"),
        (("generate", "--model", "m", "--output", "o", "--temperature", "0"), "temperature: "),
        (("prepare-data", "--output", "o", "--dataset", '{"source": "mnist"}'), "(did you mean 'fashion_mnist'?)"),
        *(  # larger numbers cannot be read from the files that the stages write
            ((stage, *options, "--seed", str(2**63), "--output", "o"), f"{stage}.seed: ")
            for stage, options in {
                "start-flow": ("--data", "d"),
                "generate": ("--model", "m"),
                "augment": ("--data", "d", "--model", "m"),
                "train-classifier": ("--data", "d"),
            }.items()
        ),
        ((*TABLE, "--table", '{"titel": "T"}'), "titel' (did you mean 'title'?)"),
        (("start-flow", "--output", "o"), "start-flow.data: "),
        (("figure", "--name", "figure7", "--files", "{}", "--output", "o"), "unknown figure 'figure7'"),
        ((*TABLE[:2], "../t", *TABLE[3:]), "name: "),
        (("generate", "--extensions", "none.py", "--model", "m", "--output", "o"), "none.py"),
    ],
)
def test_a_wrong_setting_is_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(list(arguments)) == 1
    assert message in read_error_line(capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("start-flux",), "(did you mean 'start-flow'?)"),
        (("--extension", "f.py", "evaluate"), "'--extension'"),
        ((*START, "--sed=3"), "--sed=3"),
        ((*START, "--seed"), "argument --seed"),
        ((*START, "--training.epohcs", "3"), "--training.epohcs"),
        (("classify", "model"), "IMAGES"),
        (("sample", "model", "3", "--output", "x.png"), "arguments: 3"),
    ],
)
def test_wrong_usage_is_one_line(arguments, message, capsys):
    assert main(list(arguments)) == 2
    assert message in read_error_line(capsys)


# ---- how a stage ends ---------------------------------------------------------------------------------------


def test_a_stage_ends_with_what_it_made(tmp_path, caplog):
    with caplog.at_level("INFO"):
        assert call("prepare-data", *DIGITS, "--output", tmp_path / "new") == 0
    assert caplog.messages[-1] == f"wrote {tmp_path}/new"


def test_ctrl_c_that_a_library_turns_into_an_error_of_its_own_is_one_line(monkeypatch, capsys):
    """As pydantic does where it interrupts the making of a schema."""

    def interrupt(_):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise RuntimeError("schema") from None

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(nfpi.stages.execution, "execute", interrupt)
    try:
        assert call(*START) == 130
    finally:
        signal.signal(signal.SIGINT, before)
        INTERRUPTS.clear()
    assert capsys.readouterr().err == "nfpi: stopped; run the same command again to resume\n"


@pytest.mark.parametrize("library", ["pydantic_core", "libtorch_cpu"])
def test_ctrl_c_in_the_first_seconds_is_one_line(tmp_path, library):
    """While a library is being imported, of the command line or of the stage."""
    command = [NFPI, "evaluate", "--data", tmp_path, "--model", tmp_path, "--output", tmp_path / "new"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while library not in Path(f"/proc/{process.pid}/maps").read_text():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, text = process.communicate(timeout=120)
    assert process.returncode == 130
    assert re.fullmatch("nfpi: stopped.*\n", text), text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [("--help",), ("start-flow", "--help"), ("status", "--help")])
def test_a_reader_that_closes_the_output_ends_a_command_quietly(command):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([NFPI, *command], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_command_runs_without_an_output(tmp_path, closed):
    """Closed by the caller, as `>&-` does."""
    number = {"stdout": 1, "stderr": 2}[closed]
    options = shlex.join([*DIGITS, "--output", str(tmp_path / "new")])
    command = f'exec "$0" -m nfpi.cli prepare-data {options} {number}>&-'
    done = subprocess.run(["sh", "-c", command, sys.executable], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
    assert "Traceback" not in done.stderr
    assert (tmp_path / "new/train/images.npy").stat().st_size > 1000


# ---- missing files ------------------------------------------------------------------------------------------

ROWS = [{"experiment": 0, "dataset": "digits", "label": "row", "flow_runs": [RUN]}]
STAGES_WITH_MISSING_FILES = {
    "encode-data": ("--name", "n", "--dataset", '{"source": "imagefolder", "folder": "missing", "vae": "v"}'),
    "import-model": ("missing", "--data", "missing"),
    "table": (
        *("--name", "t", "--table", "{}", "--rows", json.dumps(ROWS)),
        *("--reference", "missing", "--root", "missing"),
    ),
    "claims": (
        *("--claims", "{}", "--tables", "{}", "--rows", "{}", "--seeds", "[0]"),
        *("--root", "missing", "--reference", "missing"),
    ),
    "figure": ("--name", "accuracy_against_weight", "--files", '{"table": ["missing"]}'),
    "export": ("--images", "missing"),
}


STAGES_WITH_MISSING_FILES |= {
    stage: SmallRun(Path("missing")).make_command(stage, output=None)[1:]
    for stage in STAGE.keys() - STAGES_WITH_MISSING_FILES.keys() - {"prepare-data", "download-weights"}
}


@pytest.mark.parametrize(("stage", "arguments"), sorted(STAGES_WITH_MISSING_FILES.items()))
def test_a_missing_file_is_named_in_one_line(stage, arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([stage, *arguments, "--output", "o/p"]) == 1
    assert "missing" in read_error_line(capsys)
    assert list(tmp_path.iterdir()) == []


def test_a_fault_is_all_that_stands_on_stderr(tmp_path):
    """In a process of its own, with the log as it is for a user."""
    arguments = ["train-flow", "--data", "d", "--initial", "i", "--prior", "p.safetensors", "--output", "o"]
    done = subprocess.run([sys.executable, "-m", "nfpi.cli", *arguments], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("nfpi: error: p.safetensors: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_traceback_on_request(monkeypatch):
    monkeypatch.setenv("NFPI_TRACEBACK", "1")
    with pytest.raises(ValueError, match=r"^m/"):
        call("evaluate", "--data", "d", "--model", "m", "--output", "o")
