"""Stages that are killed at random moments and run again until they end give the results of uninterrupted ones.

Each run is a process forked from this one, which has torch loaded. It is killed some steps after its start, at any
moment of a step, of a checkpoint that is being written, or in between.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from nfpi.classifiers import training as classifier_training
from nfpi.data import writer
from nfpi.flows import MatrixExponentialFlow
from nfpi.runtime.manifests import SUFFIX
from nfpi.runtime.tensors import load_tensors
from nfpi.training import likelihood

from .conftest import SmallRun, call, check_call

SIGNALS = [signal.SIGKILL] * 5 + [signal.SIGTERM, signal.SIGUSR1]
FLOW = {"num_flows": [1, 1], "num_blocks": [1, 0], "hidden_channels": [8, 8]}
TRAINING = {
    **{"epochs": 6, "fit_after_epochs": 4, "batch_size": 20, "warmup_steps": 4, "initialization_images": 60},
    **{"augmentation": "shift", "evaluate_every": 1, "checkpoint_minutes": 0.0002},
}
CLASSIFIER = {
    **{"model": "swin", "epochs": 3, "batch_size": 16, "optimizer": "adamw", "schedule": "cosine", "warmup_epochs": 1},
    **{"train_on": "real", "checkpoint_minutes": 0.0002},
    "architecture": {"patch_size": 2, "window_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2]},
    "standard": {"crop_padding": 1, "random_erasing": 0.3, "mixup": 0.5},
}
LONGER = {"epochs": 9}
LEARNED = {"method": "gradient_descent", "objective": "equation_4"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """What the stages under test begin from."""
    run = SmallRun(
        tmp_path_factory.mktemp("root"),
        weight=0,
        images={"train_per_class": 12, "test_per_class": 4},
        flow=FLOW,
        training=TRAINING,
        classifier=CLASSIFIER,
        generation={"per_class": 500, "batch_size": 25},
    )
    run.begin()
    check_call(*run.make_command("train-flow", prior=None))
    return run


STAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "start-flow": ("start-flow", {}),
    "train-flow": ("train-flow", {"training": LONGER}),
    "learn by epoch": ("train-flow", {"training": LONGER, "learn": LEARNED, "weight": 5}),
    "learn by step": (
        "train-flow",
        {"training": LONGER, "learn": LEARNED | {"every": "step", "learning_rate": 0.01}, "weight": 5},
    ),
    "train-classifier": ("train-classifier", {"generated": None}),
    "generate": ("generate", {}),
    "augment": ("augment", {"nfa": {"batch_size": 2, "axes": 5, "variants": 4}}),
}


STEP: dict[str, tuple[Any, str]] = {
    "start-flow": (likelihood, "negative_log_likelihood"),
    "train-flow": (likelihood, "negative_log_likelihood"),
    "train-classifier": (classifier_training.F, "cross_entropy"),
    "generate": (MatrixExponentialFlow, "inverse"),
    "augment": (MatrixExponentialFlow, "inverse"),
}
"""A function that a stage calls once a step."""


def command_of(run: SmallRun, name: str, output: Path) -> tuple[str, ...]:
    stage, changes = STAGES[name]
    return run.make_command(stage, output=output, **({"prior": None} if stage == "train-flow" else {}), **changes)


def run_and_strike(arguments: tuple[str, ...], number: signal.Signals, steps: int, delay: float) -> tuple[int, str]:
    """The status of a process that gets a signal `delay` seconds after some steps, and what it writes on stderr."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        with os.fdopen(reading) as lines:
            text = lines.read()
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text
    os.dup2(writing, 2)
    sys.stderr = os.fdopen(2, "w", 1, closefd=False)

    def strike() -> None:
        time.sleep(delay)
        os.kill(os.getpid(), number)

    made = iter(range(steps))

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def step(*values: Any, **options: Any) -> Any:
            if next(made, "last") == steps - 1:
                threading.Thread(target=strike, daemon=True).start()
            return function(*values, **options)

        return step

    owner, name = STEP[arguments[0]]
    setattr(owner, name, counted(getattr(owner, name)))
    writer._MINUTES_BETWEEN_SAVES = 0.0002
    status = 99
    try:
        status = call(*arguments)
        time.sleep(0.2 if steps else 0)  # it ended before the signal came
    finally:
        os._exit(status)


def outputs(folder: Path) -> Iterator[tuple[str, Any]]:
    """What has to be the same, bit for bit: all but times and what stands for the time it took."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".csv":
            yield name, pd.read_csv(path, dtype=str).drop(columns="seconds", errors="ignore").to_csv()
        elif path.name == "metrics.json":
            yield name, {key: value for key, value in json.loads(path.read_text()).items() if key != "seconds"}
        elif name.endswith(SUFFIX):
            yield name, json.loads(path.read_text())["content"]
        elif path.is_file():
            yield name, path.read_bytes()


@pytest.mark.parametrize("name", STAGES)
def test_a_run_killed_again_and_again_and_copied_ends_as_an_uninterrupted_one(run, tmp_path, name):
    whole, cut = command_of(run, name, tmp_path / "whole"), command_of(run, name, tmp_path / "here/cut")
    status, text = run_and_strike(whole, signal.SIGKILL, 0, 0)
    assert status == 0, text
    generator = random.Random(name)
    order = generator.sample(SIGNALS, len(SIGNALS))
    moments = [(number, generator.randint(1, 3), generator.uniform(0, 0.03)) for number in order]
    print([(number.name, steps, round(delay, 4)) for number, steps, delay in moments])
    for number, steps, delay in moments:
        status, text = run_and_strike(cut, number, steps, delay)
        assert status == (-9 if number == signal.SIGKILL else 75), text
        if number != signal.SIGKILL:
            line = text.strip().splitlines()[-1]
            assert line.startswith(f"nfpi: error: stopped by {number.name}: kept "), text
            assert line.endswith("run the same command again to resume")
        assert not [path for path in (tmp_path / "here/cut").glob("*") if not path.name.startswith(".")]
    assert list(tmp_path.rglob(".checkpoint-*"))  # it does not begin anew
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    status, text = run_and_strike(command_of(run, name, tmp_path / "there/cut"), signal.SIGKILL, 0, 0)
    assert status == 0, text
    assert dict(outputs(tmp_path / "there/cut")).keys() == dict(outputs(tmp_path / "whole")).keys()
    for (file, one), (_, other) in zip(outputs(tmp_path / "there/cut"), outputs(tmp_path / "whole"), strict=True):
        assert one == other, file
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "there", "whole"]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_answered_within_seconds(run, tmp_path, number, workers):
    """The state that is kept is that of the step at hand, however long ago the last checkpoint was.

    Workers that lived on would hold stderr open, and with it the end of the run.
    """
    hours = {"epochs": 500, "checkpoint_minutes": 600, "evaluate_every": 500, "workers": workers}
    arguments = run.make_command("train-flow", prior=None, training=hours, output=tmp_path / "flow")
    began = time.monotonic()
    status, text = run_and_strike(arguments, number, 9, 0.01)
    assert status == 75, text
    assert time.monotonic() - began < 10
    (path,) = (tmp_path / "flow").glob(".checkpoint-*[!s].safetensors")
    _, header = load_tensors(path)
    assert f"kept step {header['step']} in {path}" in text
    assert header["step"] >= 4 * 6 + 9  # the steps of the initial state, and those of this run


@pytest.mark.parametrize("stage", ["evaluate", "prepare-data"])
def test_a_stage_without_checkpoints_stops_at_once_and_leaves_nothing(run, tmp_path, stage):
    child = os.fork()
    if child == 0:
        name = {"prepare-data": "nfpi.data.prepare.write_image_set", "evaluate": "nfpi.evaluation.check_shapes"}[stage]
        module, _, function = name.rpartition(".")
        setattr(importlib.import_module(module), function, lambda *_, **__: signal.raise_signal(signal.SIGTERM))
        os._exit(call(*run.make_command(stage, output=tmp_path / "new")))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 75
    assert list(tmp_path.iterdir()) == []
