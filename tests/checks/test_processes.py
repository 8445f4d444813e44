"""Two processes against one; the devices are processors here."""

from __future__ import annotations

import sys

import pytest

import nfpi.checks.processes
from nfpi.checks.processes import check_processes, compare_processes

TWO_DEVICES = """
import sys, torch
import nfpi.runtime.devices
torch.set_num_threads(1)
nfpi.runtime.devices.count_visible_gpus = lambda: 2
from nfpi.cli import main
sys.exit(main(sys.argv[1:]))
"""
OTHER_WEIGHTS = TWO_DEVICES.replace(
    "from nfpi.cli", "nfpi.training.loop.derive_seed = lambda *key: int(sys.argv[-3])\nfrom nfpi.cli"
).replace("import nfpi.runtime.devices", "import nfpi.runtime.devices, nfpi.training.loop")


@pytest.mark.parametrize(("program", "verdict"), [(TWO_DEVICES, "ok"), (OTHER_WEIGHTS, "FAILED")])
def test_two_processes_train_as_one(make_subject, program, verdict):
    line = compare_processes(make_subject(), [sys.executable, "-c", program])
    assert line.verdict == verdict, line.text
    assert "bits/dim" in line.text


def test_a_training_that_fails_is_named(make_subject):
    line = compare_processes(make_subject(), [sys.executable, "-c", "import sys; sys.exit('nfpi: error: no luck')"])
    assert (line.verdict, line.text) == ("FAILED", "1 process: nfpi: error: no luck")


def test_a_training_that_diverges_is_reported(make_subject):
    line = compare_processes(make_subject(training={"learning_rate": 1e30}), [sys.executable, "-c", TWO_DEVICES])
    assert line.verdict == "FAILED"
    assert line.text.startswith("1 process: training: the loss is not finite by step ")


def test_the_batches_are_whole_so_that_each_process_has_an_image_of_the_last_one(make_subject):
    count = """
import sys
from pathlib import Path
from nfpi.data.store import read_image_set
sys.exit(str(len(read_image_set(Path(sys.argv[sys.argv.index("--data") + 1]) / "train"))))
"""
    subject = make_subject(training={"batch_size": 3})
    assert 4 * subject.main.images.num_classes % 3 == 1
    assert compare_processes(subject, [sys.executable, "-c", count]).text == "1 process: 42"


def test_both_trainings_load_the_extensions(make_subject, tmp_path):
    extension = tmp_path / "mine.py"
    extension.write_text("")
    subject = make_subject()
    subject.config = subject.config.model_copy(update={"extensions": [extension]})
    line = compare_processes(subject, [sys.executable, "-c", "import sys; sys.exit(' '.join(sys.argv[1:4]))"])
    assert line.text == f"1 process: --extensions {extension} start-flow"


def test_without_two_cards_nothing_is_trained(make_subject, monkeypatch):
    monkeypatch.setattr(nfpi.checks.processes, "count_visible_gpus", lambda: 1)
    assert list(check_processes(make_subject())) == []
    (line,) = check_processes(make_subject(resources={"train_flow": {"gpu": 4}}))
    assert (line.check, line.verdict) == ("processes", "missing")
