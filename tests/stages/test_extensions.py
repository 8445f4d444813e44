"""Files of a user's own on the command line, and what goes wrong in them during a stage."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nfpi.config.registry import REGISTRIES
from nfpi.runtime.divergence import Diverged
from nfpi.runtime.tensors import load_tensors, save_tensors

from .conftest import SmallRun, call, check_call, list_files, read_error_line, read_json

METRIC = """\
from nfpi.results import register_metric

@register_metric("{name}", label="Mine", higher_is_better=False)
def mine(log_prob, labels):
    return {value}
"""
PRIOR = """\
from nfpi.config.base import Settings
from nfpi.priors import GaussianPrior, register_prior
from nfpi.runtime.divergence import Diverged

class Shifted(Settings):
    by: float = 1.0

@register_prior("{name}", Shifted)
def shift(statistics, initial, weight, settings):
    {check}
    return GaussianPrior(initial.mean + weight * settings.by, initial.variance)
"""
FLOW = """\
import torch
from nfpi.config.base import Settings
from nfpi.flows import ImageFlow, register_flow

class Scale(Settings):
    pass

@register_flow("{name}", Scale)
class ScaleFlow(ImageFlow):
    def __init__(self, shape, settings):
        super().__init__(shape, settings)
        self.log_scale = torch.nn.Parameter(torch.zeros(()))

    def initialize(self, x):
        self.log_scale.data.fill_(-x.std().log())

    def forward(self, x):
        z = x * self.log_scale.exp(){forward}
        return z, (self.log_scale * x[0].numel()).expand(len(x))

    def inverse(self, z):
        return z * (-self.log_scale).exp(), (-self.log_scale * z[0].numel()).expand(len(z))
"""
CLASSIFIER = """\
import torch
from nfpi.classifiers import register_classifier
from nfpi.config.base import Settings

@register_classifier("{name}", Settings)
def linear(num_classes, in_channels, image_size, settings):
    features = in_channels * image_size ** 2{features}
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(features, num_classes))
"""


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Write an extension under a name; what it registers is forgotten after the test."""
    written: list[Path] = []

    def write(text: str, **values: str) -> Path:
        path = tmp_path / f"{values['name']}.py"
        for name, value in values.items():
            text = text.replace(f"{{{name}}}", value)
        path.write_text(text)
        written.append(path)
        return path

    yield write
    for registry in REGISTRIES:
        for path in written:
            registry.forget(path.resolve())


def test_a_metric_stands_beside_those_of_the_project(trained_run, write, tmp_path):
    file = write(METRIC, name="stage_metric", value="float(len(labels)) + log_prob.shape[1]")
    command = trained_run.make_command("evaluate", metrics=["stage_metric"], output=tmp_path / "run")
    check_call(*command, "--extensions", file)
    metrics = read_json(tmp_path / "run/metrics.json")["metrics"]
    expected = read_json(trained_run.folder / "metrics.json")["metrics"]
    assert metrics["stage_metric"] == 90
    assert metrics.keys() == expected.keys() | {"stage_metric", "validation_stage_metric"}
    assert metrics["nf_acc"] == expected["nf_acc"]


def test_a_prior_is_fitted_and_trained_under(started_run, write, tmp_path):
    file = write(PRIOR, name="stage_prior", check="pass")
    prior = {"method": "stage_prior", "by": 0.5}
    command = started_run.make_command("fit-prior", prior=prior, weight=3, output=tmp_path / "fit")
    check_call("--extensions", file, *command)
    fitted, header = load_tensors(tmp_path / "fit/prior.safetensors")
    initial, _ = load_tensors(started_run.initial / "prior.safetensors")
    assert fitted["mean"].equal(initial["mean"] + 3 * 0.5)
    assert (header["method"], header["lambda"], header["settings"]["by"]) == ("stage_prior", 3, 0.5)
    assert (tmp_path / "fit/fixed_point.csv").read_text() == "iteration,mean_residual,variance_residual\n"
    command = started_run.make_command("train-flow", prior=tmp_path / "fit/prior.safetensors", output=tmp_path / "run")
    check_call("--extensions", file, *command)
    assert read_json(tmp_path / "run/model/config.json")["prior"]["method"] == "stage_prior"


def test_a_prior_that_says_it_diverged_is_a_result(started_run, write, tmp_path):
    file = write(PRIOR, name="stage_diverging", check='raise Diverged(3, 1, "mean", weight)')
    prior = {"method": "stage_diverging"}
    command = started_run.make_command("fit-prior", prior=prior, weight=7, output=tmp_path / "fit")
    check_call(*command, "--extensions", file)
    with pytest.raises(Diverged, match="iteration 3: mean of class 1") as caught:
        load_tensors(tmp_path / "fit/prior.safetensors")
    assert (caught.value.weight, caught.value.context["seed"]) == (7, 3)


@pytest.fixture
def of_flow(started_run, tmp_path: Path) -> Callable[[str], SmallRun]:
    """A run of a user's flow, on the same images."""

    def make(kind: str) -> SmallRun:
        run = replace(started_run, root=tmp_path, flow={"kind": kind})
        run.splits.parent.mkdir()
        run.splits.symlink_to(started_run.splits)
        return run

    return make


@pytest.mark.parametrize(("comment", "first"), [("", 7), ("# changed", 5)], ids=["same", "changed"])
def test_a_checkpoint_is_used_by_the_code_that_made_it(of_flow, write, comment, first, monkeypatch, cut_after):
    name = f"resumed_{first}"
    options = ("--extensions", write(FLOW, name=name, forward=""))
    run = of_flow(name)
    for stage in ("start-flow", "fit-prior"):
        check_call(*run.make_command(stage), *options)
    training = run.make_command("train-flow", training={"checkpoint_minutes": 1e-9})
    with monkeypatch.context() as patch:
        cut_after(patch, 2)
        assert call(*training, *options) == 130
    write(FLOW + comment, name=name, forward="")
    with monkeypatch.context() as patch:
        made = cut_after(patch, 99)
        check_call(*training, *options)
    assert made[0] == first


# ---- errors in it -------------------------------------------------------------------------------------------

FAULTS = {
    "metric": (METRIC, {"value": "1 / 0"}, "evaluate", {"metrics": ["NAME"]}, "5: ZeroDivisionError"),
    "prior": (PRIOR, {"check": "raise KeyError('two\\nlines')"}, "fit-prior", {"prior": {"method": "NAME"}}, "10: Key"),
    "flow": (FLOW, {"forward": " @ torch.ones(3)"}, "start-flow", {"flow": {"kind": "NAME"}}, "18: RuntimeError"),
    "classifier": (CLASSIFIER, {"features": " + x"}, "train-classifier", {"classifier": {"model": "NAME"}}, "7: Name"),
    "file": (METRIC, {"value": "("}, "evaluate", {}, "5: SyntaxError"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_an_error_in_a_users_file_is_one_line_with_file_and_line(complete_run, write, kind, tmp_path, capsys):
    text, values, stage, options, message = FAULTS[kind]
    name = f"faulty_{kind.replace(' ', '_')}"
    file = write(text, name=name, **values)
    run = replace(complete_run, flow={}) if stage == "start-flow" else complete_run
    named = json.loads(json.dumps(options).replace("NAME", name))
    command = run.make_command(stage, output=tmp_path / "new/folder", **named)
    assert call(*command, "--extensions", file) == 1
    line = read_error_line(capsys)
    assert line.startswith(f"nfpi: error: {file}:{message}"), line
    assert not (tmp_path / "new").exists()


def test_a_flow_that_training_shows_to_be_wrong_is_one_line(of_flow, write, tmp_path, capsys):
    text = FLOW.replace("self.log_scale.data.fill_(-x.std().log())", "pass").replace("z * (-self", "z * (+self")
    file = write(text, name="stage_wrong", forward="")
    training = {"batch_size": 15, "learning_rate": 0.1, "warmup_steps": 0}
    changes = {"start": "identity", "training": training, "output": tmp_path / "new"}
    assert call(*of_flow("stage_wrong").make_command("start-flow", **changes), "--extensions", file) == 1
    assert "flow 'stage_wrong': expected inverse(z) = x" in read_error_line(capsys)


def test_what_a_users_code_gives_is_checked(trained_run, write, tmp_path, capsys):
    file = write(METRIC, name="stage_nan", value='float("nan")')
    command = trained_run.make_command("evaluate", metrics=["stage_nan"], output=tmp_path / "new")
    assert call(*command, "--extensions", file) == 1
    assert "'stage_nan'" in read_error_line(capsys)
    file = write(PRIOR, name="stage_list", check="return [1, 2]")
    command = trained_run.make_command("fit-prior", prior={"method": "stage_list"}, output=tmp_path / "new")
    assert call(*command, "--extensions", file) == 1
    assert "'stage_list'" in read_error_line(capsys)
    assert list_files(tmp_path) == {"stage_nan.py", "stage_list.py"}


def test_a_model_of_an_extension_that_is_not_named_is_one_line(started_run, write, tmp_path, capsys):
    command = started_run.make_command("evaluate", model=tmp_path / "model", output=tmp_path / "new")
    (tmp_path / "model").mkdir()
    config = read_json(started_run.folder / "model/config.json") if started_run.model.exists() else {}
    config |= {"format": 1, "flow": {"kind": "absent", "shape": [1, 8, 8], "settings": {}}}
    (tmp_path / "model/config.json").write_text(json.dumps(config))
    save_tensors(tmp_path / "model/model.safetensors", {"x": torch.zeros(1)}, {"format": 1})
    assert call(*command) == 1
    assert "'absent'" in read_error_line(capsys)
    assert not (tmp_path / "new").exists()
