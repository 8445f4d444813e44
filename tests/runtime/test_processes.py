"""Two processes on a CPU train what one trains; they stop, fail and resume as one."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
import torch

import nfpi.runtime.device
import nfpi.runtime.processes
from nfpi.cli import main
from nfpi.config.flows import TrainingConfig
from nfpi.config.priors import GradientDescentSettings, LearnedMethod
from nfpi.data.store import ImageSet
from nfpi.runtime.device import make_device
from nfpi.runtime.processes import Processes, read_rank_and_port
from nfpi.runtime.tensors import load_tensors
from nfpi.training.batches import TrainingData
from nfpi.training.flow import continue_training, start_training

FLOW = {"num_flows": [1, 1], "num_blocks": [1, 0], "hidden_channels": [8, 8]}
TRAINING = {
    **{"epochs": 3, "batch_size": 15, "warmup_steps": 4, "initialization_images": 60, "augmentation": "shift"},
    **{"evaluate_every": 1, "grey_noise": 0.05},
}
LEARNED = {
    "fixed": None,
    "epoch": LearnedMethod("gradient_descent", 20.0, GradientDescentSettings(objective="released")),
    "step": LearnedMethod("gradient_descent", 20.0, GradientDescentSettings(every="step", learning_rate=0.01)),
}


@pytest.fixture
def as_two(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], object]], None]:
    """Do something in two processes that are forked from this one, which has torch loaded."""

    def run(function: Callable[[int], object]) -> None:
        monkeypatch.setattr(nfpi.runtime.device, "count_visible_gpus", lambda: 2)
        monkeypatch.setattr(nfpi.runtime.processes, "_other_processes", lambda *_: nullcontext())
        monkeypatch.setattr(nfpi.runtime.processes, "_end_with_first", lambda: None)
        (_, port), children = read_rank_and_port(), []
        for rank in range(2):
            if not (child := os.fork()):
                status = 1
                try:
                    os.environ["NFPI_PROCESS"] = f"{rank} {port}"
                    function(rank)
                    status = 0
                finally:
                    os._exit(status)
            children.append(child)
        assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]

    return run


# ---- numbers ------------------------------------------------------------------------------------------------


def trained(images: tuple[ImageSet, ImageSet], learned: LearnedMethod | None) -> dict[str, torch.Tensor]:
    """All that a start and the training after it leave, in this process, beside which there may be another."""
    device = make_device(devices=2)
    data = TrainingData(*images, TrainingConfig(**TRAINING), device.device, device.processes)
    flow = {"kind": "matrix_exponential", "shape": [1, 8, 8], "settings": FLOW}
    with device.launch_processes():
        begun = start_training(data, flow, "data", 3, device)
        state = continue_training(begun.state, begun.prior, data, device, learned=learned)
    statistics = {name: getattr(begun.statistics, name) for name in ("count", "mean", "variance")}
    numbers = ("train_bits_per_dim", "prior_loss", "validation_bits_per_dim")
    log = {f"log.{row['epoch']}.{name}": torch.tensor(row[name]) for row in state.log for name in numbers if row[name]}
    return {**state.serialize()[0], **statistics, **log}


@pytest.mark.parametrize("how", LEARNED)
def test_two_processes_train_what_one_trains(make_images, tmp_path, as_two, how):
    """Up to rounding: shares of 8 and 7 images, and a last batch of 9."""
    images = (make_images(per_class=23), make_images(per_class=10, seed=1))
    expected = trained(images, LEARNED[how])
    as_two(lambda rank: torch.save(trained(images, LEARNED[how]), tmp_path / str(rank)))
    first, second = (torch.load(tmp_path / str(rank), weights_only=True) for rank in range(2))
    assert first.keys() == expected.keys()
    assert expected["count"].tolist() == [23, 23, 23]
    assert expected["log.3.validation_bits_per_dim"] > 0
    for name, value in expected.items():
        torch.testing.assert_close(first[name], value, rtol=1e-4, atol=1e-5)
        if not name.startswith(("average.", "log.")):
            assert torch.equal(first[name], second[name]), name


def test_the_first_alone_shows_what_is_seen_of_a_training(make_images, tmp_path, as_two):
    """With the second one it draws samples of what both train."""

    def start(rank: int) -> None:
        device, images = make_device(devices=2), make_images(per_class=23)
        config = TrainingConfig(**TRAINING, sample_every_epochs=1)
        data = TrainingData(images, images, config, device.device, device.processes)
        flow = {"kind": "matrix_exponential", "shape": [1, 8, 8], "settings": FLOW}
        with device.launch_processes():
            start_training(data, flow, "data", 3, device, tracked=tmp_path / str(rank))

    as_two(start)
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png")] == ["0/samples/epoch=0001.png"]
    assert not (tmp_path / "1").exists()


@pytest.mark.parametrize(("length", "count"), [(16, 3), (7, 4), (4, 4), (5, 1)])
def test_shares_are_those_of_the_loader(length, count):
    parts = [list(range(length))[Processes(rank, count).get_slice(length)] for rank in range(count)]
    assert list(chain(*parts)) == list(range(length))
    assert [len(part) for part in parts] == [len(part) for part in torch.arange(length).tensor_split(count)]


def test_a_batch_that_leaves_a_process_without_an_image_is_refused(make_images):
    images = make_images()  # 60
    data = TrainingData(images, images, TrainingConfig(batch_size=59), torch.device("cpu"))
    with pytest.raises(ValueError, match="received 1"):
        replace(data, processes=Processes(0, 2))


def test_no_more_processes_than_gpus(monkeypatch):
    for gpus in (0, 1):
        monkeypatch.setattr(nfpi.runtime.device, "count_visible_gpus", lambda gpus=gpus: gpus)
        assert make_device(devices=4).processes.count == 1
    monkeypatch.setattr(nfpi.runtime.device, "count_visible_gpus", lambda: 3)
    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    assert make_device(devices=4).processes.count == 3
    assert make_device(devices=2).processes.count == 2


# ---- beginning and end --------------------------------------------------------------------------------------

COMMAND = """
import sys, torch
import nfpi.runtime.device
torch.set_num_threads(1)
nfpi.runtime.device.count_visible_gpus = lambda: 2  # here they are processors
from nfpi.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "splits"
    sizes = json.dumps({"train_per_class": 12, "test_per_class": 4})
    assert main(["prepare-data", "--dataset", sizes, "--output", str(folder)]) == 0
    return folder


def others_of(first: subprocess.Popen[str]) -> list[int]:
    listed = subprocess.run(["ps", "--ppid", str(first.pid), "-o", "pid="], capture_output=True, text=True)
    return [int(line) for line in listed.stdout.split()]


def is_there(pid: int) -> bool:
    listed = subprocess.run(["ps", "-p", str(pid), "-o", "stat="], capture_output=True, text=True).stdout
    return bool(listed.strip()) and not listed.startswith("Z")


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_signal_stops_both_processes_and_they_resume_from_one_state(splits, tmp_path, as_two):
    """Each gets SIGTERM, as a cluster sends it; the end is that of two that nobody stopped, bit for bit."""

    def arguments(output: str, minutes: float) -> list[str]:
        changes = {"epochs": 25, "fit_after_epochs": 20, "evaluate_every": 25, "checkpoint_minutes": minutes}
        training = TRAINING | changes
        options = ("--flow", json.dumps(FLOW), "--training", json.dumps(training), "--devices", 2)
        return [str(x) for x in ("start-flow", "--data", splits, *options, "--output", tmp_path / output)]

    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train"}
    command = [sys.executable, "-c", COMMAND, *arguments("cut", 1e-9)]
    cut = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: list((tmp_path / "cut").glob(".checkpoint-*")))
    (other,) = others_of(cut)
    for number in (signal.SIGTERM, signal.SIGUSR1):
        os.kill(other, number)
    time.sleep(0.2)
    assert is_there(other)  # it leaves signals to the first
    cut.send_signal(signal.SIGTERM)
    _, text = cut.communicate()
    assert cut.returncode == 75, text
    assert re.search(r"stopped by SIGTERM: kept step \d+ in ", text)
    assert not is_there(other)

    def finish(output: str) -> None:
        assert main(arguments(output, 60.0)) == 0

    for output in ("cut", "whole"):
        as_two(lambda _, output=output: finish(output))
        found = sorted(path.suffix for path in (tmp_path / output).iterdir())
        assert found == [".csv", ".json", *3 * [".safetensors"]]  # with the manifest
    for file in ("state", "statistics", "prior"):
        (one, header), (other, _) = (load_tensors(tmp_path / run / f"{file}.safetensors") for run in ("whole", "cut"))
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert torch.equal(value, other[name]), f"{file}: {name}"
        if file == "state":
            assert header["devices"] == 2


FAULT = "import sys; print('nfpi: error: an image is damaged', file=sys.stderr); sys.exit(1)"
KILLED = "import os; os.kill(os.getpid(), {})"


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize(
    ("other", "words"),
    [
        (FAULT, "an image is damaged"),
        (KILLED.format(9), "process 1 of this run was ended by signal 9 "),
        (KILLED.format(35), "process 1 of this run was ended by signal 35 "),  # real-time, without a name
    ],
)
def test_if_one_process_fails_all_end_with_its_error(monkeypatch, tmp_path, other, words, waits):
    """Whether the first waits for the other forever, or gets an error from the exchange with it."""
    monkeypatch.setattr(sys, "orig_argv", ["python", "-c", other])
    monkeypatch.setattr(nfpi.runtime.processes, "_GRACE", 0.2)
    if not (first := os.fork()):
        sys.stderr = (tmp_path / "words").open("w")
        try:
            with nfpi.runtime.processes._other_processes(2, 1):
                time.sleep(60 if waits else 0)
                raise RuntimeError("connection closed by peer")
        finally:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]) == 1
    assert (tmp_path / "words").read_text().startswith(f"nfpi: error: {words}")


def test_the_others_end_with_a_first_that_is_killed(monkeypatch, tmp_path):
    waiting = "import os, pathlib; pathlib.Path({0!r}).touch(); os.read(0, 1); pathlib.Path({0!r}).unlink()"
    monkeypatch.setattr(sys, "orig_argv", ["python", "-c", waiting.format(str(tmp_path / "there"))])
    if not (first := os.fork()):
        with nfpi.runtime.processes._other_processes(2, 1):
            time.sleep(60)
        os._exit(99)
    wait_for((tmp_path / "there").exists)
    os.kill(first, signal.SIGKILL)
    os.waitpid(first, 0)
    wait_for(lambda: not (tmp_path / "there").exists(), 10)
    reading, writing = os.pipe()
    if not (other := os.fork()):
        os.close(writing)
        os.dup2(reading, 0)
        nfpi.runtime.processes._end_with_first()
    os.close(writing)
    assert os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]) == 1


def test_where_the_first_fails_its_own_words_count(monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", ["python", "-c", "import time; time.sleep(60)"])
    monkeypatch.setattr(nfpi.runtime.processes, "_GRACE", 0.2)
    began = time.monotonic()
    for fault in (RuntimeError, ArithmeticError):
        with pytest.raises(fault, match="its own"), nfpi.runtime.processes._other_processes(3, 1):
            raise fault("its own")
    assert time.monotonic() - began < 10
