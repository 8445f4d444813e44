"""The stages by hand, one after the other, as Snakemake calls them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest

from nfpi.cli import Commands, main
from nfpi.config import Stage, format_weight

ROOT = Path(__file__).parents[1]
STAGES = [name.replace("_", "-") for name in Commands.model_fields]
HEAVY = ("torch", "torchvision", "pandas", "matplotlib", "sklearn", "timm", "lightning_fabric", "numpy")

FLOW = {"num_flows": [1], "num_blocks": [1], "hidden_channels": [8]}
TRAINING = {"epochs": 3, "batch_size": 64, "warmup_steps": 4, "initialization_images": 100, "augmentation": "none"}
RESNET = {"epochs": 1, "batch_size": 10, "standard": {"crop_padding": 0}}
LEAF = "digits/fpi/lambda={weight}/seed=3"


def call(*arguments: object) -> int:
    """The status a stage ends with."""
    return main([str(argument) for argument in arguments])


def nfpi(*arguments: object) -> None:
    """A stage that must end well."""
    assert call(*arguments) == 0, arguments


def leaf_stages(root: Path, weight: float, *, update: str = "released") -> Path:
    """Everything of a run, from its fit to the test of its classifier."""
    leaf = root / LEAF.format(weight=format_weight(weight))
    splits, begun = root / "digits/splits", root / "digits/start/data/seed=3"
    nfpi(
        *("fit-prior", "--statistics", begun / "statistics.safetensors", "--initial", begun / "prior.safetensors"),
        *("--prior", json.dumps({"update": update}), "--weight", weight),
        *("--output", leaf / "fit/prior.safetensors", "--iterations", leaf / "fit/fixed_point.csv"),
    )
    nfpi(
        *("train-flow", "--data", splits, "--state", begun / "state.safetensors"),
        *("--prior", leaf / "fit/prior.safetensors", "--training", json.dumps(TRAINING), "--output", leaf / "flow"),
    )
    trained = ("--flow", leaf / "flow/flow.safetensors", "--prior", leaf / "flow/prior.safetensors")
    nfpi("evaluate", "--data", splits, *trained, "--evaluation.batch-size", 100, "--output", leaf / "metrics.json")
    for temperature in (0.8, 1):
        generated, classifier = leaf / f"generated/{temperature}", leaf / f"resnet18/{temperature}"
        nfpi(
            *("generate", *trained, "--temperature", temperature, "--per-class", 4, "--batch-size", 15),
            *("--seed", 3, "--output", generated),
        )
        nfpi(
            *("train-classifier", "--data", splits, "--generated", generated, "--classifier", json.dumps(RESNET)),
            *("--name", "resnet18", "--seed", 3, "--output", classifier),
        )
    nfpi(
        *("test-classifier", leaf / "resnet18/0.8", leaf / "resnet18/1", "--data", splits),
        *("--output", leaf / "resnet18/metrics.json"),
    )
    return leaf


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with digits and the start of a training."""
    root = tmp_path_factory.mktemp("results")
    nfpi(
        *("prepare-data", "--name", "digits", "--dataset", '{"train_per_class": 20, "test_per_class": 8}'),
        *("--no-dataset.flip", "--output", root / "digits/splits"),
    )
    nfpi(
        *("start-flow", "--data", root / "digits/splits", "--flow", json.dumps(FLOW)),
        *("--training", json.dumps(TRAINING), "--seed", 3, "--output", root / "digits/start/data/seed=3"),
    )
    return root


@pytest.fixture(scope="module")
def leaf(root: Path) -> Path:
    return leaf_stages(root, 100)


@pytest.fixture(scope="module")
def diverged_leaf(root: Path) -> Path:
    """The exact update loses A's definiteness at such a weight."""
    return leaf_stages(root, 1000000, update="exact")


def files_of(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


IMAGE_SET = {"images.npy", "labels.npy", "meta.json"}
LEAF_FILES = {
    *("fit/prior.safetensors", "fit/fixed_point.csv"),
    *("flow/flow.safetensors", "flow/prior.safetensors", "flow/log.csv", "metrics.json"),
    *(f"generated/{temperature}/{name}" for temperature in ("0.8", "1") for name in IMAGE_SET),
    *(f"resnet18/{t}/{name}" for t in ("0.8", "1") for name in ("model.safetensors", "metrics.json", "log.csv")),
    "resnet18/metrics.json",
}


def metrics_in(path: Path) -> dict:
    return json.loads(path.read_text())


# ---- the chain ----------------------------------------------------------------------------------------------


def test_the_first_stages_leave_what_they_declare(root):
    splits = {f"{split}/{name}" for split in ("train", "validation", "test") for name in IMAGE_SET}
    assert files_of(root / "digits/splits") == splits
    begun = root / "digits/start/data/seed=3"
    assert files_of(begun) == {"state.safetensors", "prior.safetensors", "statistics.safetensors", "log.csv"}
    assert pd.read_csv(begun / "log.csv")["epoch"].tolist() == [1]
    meta = metrics_in(root / "digits/splits/train/meta.json")
    assert set(meta["counts"].values()) == {20}
    assert meta["extra"]["flip"] is False


def test_a_run_leaves_what_its_stages_declare(leaf):
    assert files_of(leaf) == LEAF_FILES
    assert pd.read_csv(leaf / "flow/log.csv")["epoch"].tolist() == [1, 2, 3]
    fitted = pd.read_csv(leaf / "fit/fixed_point.csv")
    assert list(fitted) == ["iteration", "mean_residual", "variance_residual"]
    assert fitted["iteration"].tolist() == list(range(1, len(fitted) + 1))
    assert fitted.iloc[-1][["mean_residual", "variance_residual"]].max() <= 0.1
    assert (leaf / "flow/prior.safetensors").read_bytes() == (leaf / "fit/prior.safetensors").read_bytes()


def test_the_metrics_of_a_run(leaf):
    flow = metrics_in(leaf / "metrics.json")
    assert set(flow["metrics"]) == {
        *("nf_acc", "nf_top5", "bits_per_dim", "validation_nf_acc", "validation_bits_per_dim")
    }
    assert (flow["n"], flow["seed"]) == (80, 3)
    assert flow["settings"]["prior"]["weight"] == 100
    assert flow["settings"]["flow"]["flow"]["num_flows"] == [1]
    chosen = metrics_in(leaf / "resnet18/metrics.json")
    compared = chosen["settings"]["compared"]
    assert set(compared) == {"0.8", "1"}
    assert chosen["metrics"]["validation_cnn_acc"] == max(compared.values())
    assert str(chosen["metrics"]["temperature"]).removesuffix(".0") == max(compared, key=lambda t: compared[t])
    assert 0 <= chosen["metrics"]["cnn_acc"] <= 100


@pytest.mark.parametrize("best", ["0.8", "1"])
def test_the_classifier_that_is_best_on_the_validation_split_is_tested(root, leaf, best, tmp_path):
    for temperature in ("0.8", "1"):
        candidate = tmp_path / temperature
        candidate.mkdir()
        (candidate / "model.safetensors").write_bytes((leaf / f"resnet18/{temperature}/model.safetensors").read_bytes())
        accuracy = 70.0 if temperature == best else 60.0
        (candidate / "metrics.json").write_text(json.dumps({"metrics": {"validation_cnn_acc": accuracy}}))
    nfpi(
        *("test-classifier", tmp_path / "0.8", tmp_path / "1", "--data", root / "digits/splits"),
        *("--output", tmp_path / "metrics.json"),
    )
    metrics = metrics_in(tmp_path / "metrics.json")
    assert metrics["metrics"]["temperature"] == float(best)
    assert metrics["metrics"]["validation_cnn_acc"] == 70
    assert metrics["settings"]["compared"] == {"0.8": 70 if best == "0.8" else 60, "1": 70 if best == "1" else 60}


def test_generated_images_are_balanced_and_of_the_flows_form(leaf):
    images, labels = (np.load(leaf / f"generated/0.8/{name}.npy") for name in ("images", "labels"))
    assert images.shape == (40, 8, 8, 1)
    assert images.dtype == np.uint8
    assert labels.tolist() == np.repeat(np.arange(10), 4).tolist()
    meta = metrics_in(leaf / "generated/0.8/meta.json")
    assert meta["extra"].items() >= {"temperature": 0.8, "seed": 3, "flip": False}.items()
    assert meta["split"] == "generated"


def test_a_fit_that_diverged_is_a_result_of_every_stage(diverged_leaf):
    assert files_of(diverged_leaf) == LEAF_FILES
    fitted = metrics_in(diverged_leaf / "metrics.json")["diverged"]
    assert fitted["weight"] == 1e6
    for name in ("metrics.json", "resnet18/0.8/metrics.json", "resnet18/metrics.json"):
        metrics = metrics_in(diverged_leaf / name)
        assert metrics["metrics"] == {}
        assert metrics["diverged"] == fitted
        assert metrics["seed"] == 3
        assert metrics["settings"]["prior"]["update"] == "exact"
    assert list(pd.read_csv(diverged_leaf / "flow/log.csv")) == ["epoch"]


def test_collect_table_figure_show_both(root, leaf, diverged_leaf):
    metrics = [folder / name for folder in (leaf, diverged_leaf) for name in ("metrics.json", "resnet18/metrics.json")]
    nfpi("collect", *metrics, "--root", root, "--output", root / "metrics/table2.csv")
    table = {"title": "Small", "experiments": [{"dataset": "digits", "prior": "fpi", "lambdas": [100, 1e6]}]}
    nfpi(
        *("table", "--name", "table2", "--table", json.dumps(table), "--priors", '{"fpi": {}}'),
        *("--metrics", root / "metrics/table2.csv", "--reference", ROOT / "workflow/reference/paper.csv"),
        *("--output", root / "tables"),
    )
    nfpi(
        *("figure", root / "tables/table2.csv", "--name", "accuracy_against_weight"),
        *("--output", root / "figures/accuracy_against_weight"),
    )
    assert files_of(root / "tables") == {"table2.csv", "table2.md", "table2.tex"}
    assert files_of(root / "figures") == {"accuracy_against_weight.png", "accuracy_against_weight.pdf"}
    rows = pd.read_csv(root / "tables/table2.csv")
    assert rows["lambda"].tolist() == [100, 1e6]
    assert rows["nf_acc"][0] == metrics_in(leaf / "metrics.json")["metrics"]["nf_acc"]
    assert rows["cnn_acc"][0] == metrics_in(leaf / "resnet18/metrics.json")["metrics"]["cnn_acc"]
    assert rows[["nf_acc", "cnn_acc"]].iloc[1].isna().all()
    assert rows["status"][0] == "ok"
    assert "diverged" in rows["status"][1]
    assert "diverged" in (root / "tables/table2.md").read_text()


def test_export_writes_images_that_other_programs_read(leaf, tmp_path):
    nfpi("export", "--images", leaf / "generated/1", "--format", "imagefolder", "--output", tmp_path / "png")
    files = files_of(tmp_path / "png")
    assert len(files) == 40
    assert {file.split("/")[0] for file in files} == {str(digit) for digit in range(10)}


def test_there_is_nothing_to_export_of_a_fit_that_diverged(diverged_leaf, tmp_path, capsys):
    assert main(["export", "--images", str(diverged_leaf / "generated/1"), "--output", str(tmp_path / "png")]) == 1
    assert "fixed-point iteration diverged" in error_line(capsys)
    assert not (tmp_path / "png").exists()


def test_every_stage_of_the_workflow_has_a_subcommand():
    several = {"analyse"}  # resources of the stages that figures are drawn from
    assert {stage.replace("_", "-") for stage in get_args(Stage)} - several <= set(STAGES)


# ---- a run that is cut --------------------------------------------------------------------------------------


@pytest.fixture
def train_flow(root: Path, leaf: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Arguments of a training with checkpoints after every step."""

    def arguments(output: Path, **training: object) -> list[str]:
        settings = TRAINING | {"checkpoint_minutes": 1e-9} | training
        return [
            *("train-flow", "--data", str(root / "digits/splits")),
            *("--state", str(root / "digits/start/data/seed=3/state.safetensors")),
            *("--prior", str(leaf / "fit/prior.safetensors")),
            *("--training", json.dumps(settings), "--output", str(output)),
        ]

    return arguments


def test_an_interrupted_training_goes_on_by_itself(leaf, train_flow, tmp_path, monkeypatch, capsys, cut_after):
    from nfpi.runtime.tensors import load_tensors

    with monkeypatch.context() as patch:
        assert cut_after(patch, 2) == []
        assert main(train_flow(tmp_path / "flow")) == 130
    assert error_line(capsys) == "nfpi: error: interrupted"
    assert all(name.startswith(".checkpoint-") for name in files_of(tmp_path / "flow"))
    with monkeypatch.context() as patch:
        made = cut_after(patch, 99)
        nfpi(*train_flow(tmp_path / "flow"))
    assert made[0] == 7  # of steps 5 to 12, the first two were made before
    assert files_of(tmp_path / "flow") == {"flow.safetensors", "prior.safetensors", "log.csv"}
    resumed, uncut = (load_tensors(folder / "flow.safetensors") for folder in (tmp_path / "flow", leaf / "flow"))
    for name, tensor in uncut[0].items():
        assert tensor.equal(resumed[0][name]), name
    logs = [pd.read_csv(folder / "log.csv").drop(columns="seconds") for folder in (tmp_path / "flow", leaf / "flow")]
    pd.testing.assert_frame_equal(*logs, check_exact=True)


@pytest.mark.parametrize("change", [{"learning_rate": 0.02}, {"epochs": 4}])
def test_a_checkpoint_of_other_settings_is_not_used(train_flow, tmp_path, monkeypatch, change, cut_after):
    with monkeypatch.context() as patch:
        cut_after(patch, 2)
        assert main(train_flow(tmp_path / "flow")) == 130
    with monkeypatch.context() as patch:
        made = cut_after(patch, 99)
        nfpi(*train_flow(tmp_path / "flow", **change))
    assert made[0] == 5


def test_how_a_training_is_run_is_no_reason_to_forget_a_checkpoint(train_flow, tmp_path, monkeypatch, cut_after):
    with monkeypatch.context() as patch:
        cut_after(patch, 2)
        assert main(train_flow(tmp_path / "flow")) == 130
    with monkeypatch.context() as patch:
        made = cut_after(patch, 99)
        nfpi(*train_flow(tmp_path / "flow", workers=1, checkpoint_minutes=1e-8))
    assert made[0] == 7


# ---- Gaussians that are learned, and random ones ------------------------------------------------------------

LEARN = {
    "epoch": {"method": "gradient_descent", "learning_rate": 0.05},
    "step": {"method": "gradient_descent", "every": "step", "learning_rate": 0.01},
    "released": {"method": "gradient_descent", "objective": "released"},
}


@pytest.fixture
def learn(root: Path) -> Callable[..., list[str]]:
    """Arguments of a training that learns its Gaussians, from the initial ones."""

    def arguments(output: Path, how: str, weight: float = 50, **changes: object) -> list[str]:
        begun = root / "digits/start/data/seed=3"
        return [
            *("train-flow", "--data", str(root / "digits/splits"), "--state", str(begun / "state.safetensors")),
            *("--prior", str(begun / "prior.safetensors"), "--learn", json.dumps(LEARN[how] | changes)),
            *("--weight", str(weight), "--training", json.dumps(TRAINING | {"checkpoint_minutes": 1e-9})),
            *("--output", str(output)),
        ]

    return arguments


@pytest.mark.parametrize("how", LEARN)
def test_a_training_that_learns_its_gaussians_goes_on_and_writes_them(
    root, learn, how, tmp_path, monkeypatch, cut_after
):
    from nfpi.runtime.tensors import load_prior, load_tensors

    nfpi(*learn(tmp_path / "uncut", how))
    with monkeypatch.context() as patch:
        cut_after(patch, 2)
        assert main(learn(tmp_path / "cut", how)) == 130
    with monkeypatch.context() as patch:
        made = cut_after(patch, 99)
        nfpi(*learn(tmp_path / "cut", how))
    assert made[0] == 7
    for name in ("flow", "prior"):
        (one, header), (other, _) = (load_tensors(tmp_path / f"{run}/{name}.safetensors") for run in ("cut", "uncut"))
        for key, tensor in other.items():
            assert tensor.equal(one[key]), f"{name}: {key}"
    assert (header["start"], header["seed"], header["weight"]) == ("data", 3, 50)
    assert LEARN[how].items() <= header["settings"].items()
    initial, _ = load_prior(root / "digits/start/data/seed=3/prior.safetensors")
    final, _ = load_prior(tmp_path / "cut/prior.safetensors")
    assert (final.mean - initial.mean).abs().max() > 0.01
    assert final.variance.min() > 0.25
    log = pd.read_csv(tmp_path / "cut/log.csv")
    assert log["prior_loss"].isna().tolist() == [True, False, False]
    metrics = tmp_path / "metrics.json"
    trained = ("--flow", tmp_path / "cut/flow.safetensors", "--prior", tmp_path / "cut/prior.safetensors")
    nfpi("evaluate", "--data", root / "digits/splits", *trained, "--output", metrics)
    assert metrics_in(metrics)["settings"]["prior"]["settings"]["method"] == "gradient_descent"


@pytest.mark.parametrize("change", [{"weight": 60}, {"power": 2}])
def test_a_checkpoint_of_another_learner_is_not_used(learn, tmp_path, monkeypatch, change, cut_after):
    with monkeypatch.context() as patch:
        cut_after(patch, 2)
        assert main(learn(tmp_path / "flow", "epoch")) == 130
    with monkeypatch.context() as patch:
        made = cut_after(patch, 99)
        nfpi(*learn(tmp_path / "flow", "epoch", **change))
    assert made[0] == 5


def test_gaussians_that_are_not_learned_stay(root, learn, tmp_path):
    arguments = learn(tmp_path / "flow", "epoch")
    del arguments[arguments.index("--learn") : arguments.index("--learn") + 2]
    nfpi(*arguments)
    initial = root / "digits/start/data/seed=3/prior.safetensors"
    assert (tmp_path / "flow/prior.safetensors").read_bytes() == initial.read_bytes()
    assert pd.read_csv(tmp_path / "flow/log.csv")["prior_loss"].isna().all()


def test_a_learner_that_cannot_be_is_refused_in_one_line(learn, tmp_path, capsys):
    assert main(learn(tmp_path / "flow", "released", every="step")) == 1
    assert "objective: released is of all training latents" in error_line(capsys)
    assert not (tmp_path / "flow").exists()


def test_a_start_from_random_means(root, tmp_path):
    from nfpi.runtime.tensors import load_prior

    for seed in (3, 4):
        nfpi(
            *("start-flow", "--data", root / "digits/splits", "--flow", json.dumps(FLOW), "--start", "random"),
            *("--training", json.dumps(TRAINING), "--seed", seed, "--output", tmp_path / str(seed)),
        )
    (one, header), (other, _) = (load_prior(tmp_path / f"{seed}/prior.safetensors") for seed in (3, 4))
    assert header == {"start": "random", "seed": 3, "weight": 0.0}
    assert (one.variance == 1).all()
    assert not one.mean.equal(other.mean)
    assert abs(one.mean.mean()) < 0.2  # of 640 numbers
    assert abs(one.mean.std() - 1) < 0.15


# ---- help ---------------------------------------------------------------------------------------------------


def test_help_answers_without_heavy_imports():
    """One process asks for all of them: what one imported, the next would find."""
    program = f"""
import contextlib, io, sys
from nfpi.cli import main
for arguments in [[], *([stage] for stage in {STAGES!r})]:
    text = io.StringIO()
    try:
        with contextlib.redirect_stdout(text):
            main([*arguments, "--help"])
    except SystemExit as end:
        assert end.code == 0, arguments
    else:
        raise AssertionError(f"no help for {{arguments}}")
    assert "usage: nfpi " + " ".join(arguments) in text.getvalue(), text.getvalue()
    loaded = [name for name in {HEAVY!r} if name in sys.modules]
    assert not loaded, (arguments, loaded)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_installed_program_is_this_one():
    program = Path(sys.executable).parent / "nfpi"
    done = subprocess.run([program, "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: nfpi")
    assert done.stderr == ""


def test_help_names_a_knob_with_its_meaning_and_its_default(capsys):
    with pytest.raises(SystemExit):
        main(["start-flow", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "--training.ema-decay" in text
    assert "largest decay of the exponential moving average" in text
    assert "(default: 0.9999)" in text


# ---- settings -----------------------------------------------------------------------------------------------


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    """The stage that a command line makes; it does not run."""

    def parse(*arguments: str) -> object:
        seen: list[object] = []
        with monkeypatch.context() as patch:
            for field in Commands.model_fields.values():
                patch.setattr(get_args(field.annotation)[0], "run", lambda stage: seen.append(stage))
            assert main(list(arguments)) == 0
        (stage,) = seen
        return stage

    return parse


START = ("start-flow", "--data", "d", "--output", "o")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--training", '{"epochs": 7, "gradient_clip": 2.5, "augmentation": "shift"}'),
        ("--training.epochs", "7", "--training.gradient-clip", "2.5", "--training.augmentation", "shift"),
        (
            *("--training", '{"epochs": 7, "augmentation": "flip"}'),
            *("--training.gradient-clip", "2.5", "--training.augmentation", "shift"),
        ),
        ("--training.epochs=7", "--training.gradient-clip=2.5", "--training.augmentation=shift"),
    ],
)
def test_groups_as_json_and_single_settings(parsed, arguments):
    stage = parsed(*START, *arguments)
    training = stage.training
    assert (training.epochs, training.gradient_clip, training.augmentation) == (7, 2.5, "shift")
    assert training.batch_size == 512
    assert stage.flow.num_flows == [8, 8, 8]


def test_lists_and_switches(parsed):
    stage = parsed(*START, "--flow.num-flows", "[1, 2]", "--flow.num-blocks", "0,0", "--flow.hidden-channels", "[8, 8]")
    assert (stage.flow.num_flows, stage.flow.num_blocks) == ([1, 2], [0, 0])
    fit = ("fit-prior", "--statistics", "s", "--initial", "i", "--weight", "1e4", "--output", "o", "--iterations", "c")
    assert parsed(*fit).prior.fit_mean is True
    stage = parsed(*fit, "--no-prior.fit-mean")
    assert (stage.prior.fit_mean, stage.prior.fit_variance, stage.weight) == (False, True, 10000)


@pytest.mark.parametrize("flow", ['{"num_flows": [1], "num_blocks": [2], "hidden_channels": [8]}'])
def test_a_list_in_json_replaces_the_default(parsed, flow):
    assert parsed(*START, "--flow", flow).flow.num_flows == [1]


def test_nothing_is_taken_from_the_environment(parsed, monkeypatch):
    for name, value in {
        "SEED": "5",
        "START_FLOW": '{"seed": 6, "data": "x"}',
        "START_FLOW__SEED": "7",
        "START": "identity",
        "TRAINING": '{"epochs": 9}',
        "TRAINING__EPOCHS": "9",
        "NFPI_SEED": "8",
        "OUTPUT": "elsewhere",
    }.items():
        monkeypatch.setenv(name, value)
        monkeypatch.setenv(name.lower(), value)
    stage = parsed(*START)
    assert (stage.seed, stage.start, stage.training.epochs, str(stage.output)) == (0, "data", 500, "o")


# ---- faults -------------------------------------------------------------------------------------------------


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """What stands on stderr: one line."""
    text = capsys.readouterr().err
    assert text.startswith("nfpi: error: "), text
    assert text.count("\n") == 1
    assert text.endswith("\n")
    return text.strip()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*START, "--training", '{"epohcs": 3}'), "training.epohcs' (did you mean 'epochs'?)"),
        ((*START, "--training.epochs", "0"), "training.epochs: Input should be greater than or equal to 1"),
        ((*START, "--training.epochs", "many"), "training.epochs: Input should be a valid integer"),
        ((*START, "--training", '{"epochs": 3'), "start_flow"),
        ((*START, "--training", '{"epochs": 3, "fit_after_epochs": 3}'), "fit_after_epochs must be smaller"),
        ((*START, "--start", "middle"), "start: Input should be 'data', 'identity' or 'random'"),
        (("start-flow", "--output", "o"), "data: Field required"),
        (
            (
                *("fit-prior", "--statistics", "s", "--initial", "i", "--output", "o", "--iterations", "c"),
                "--weight=-1",
            ),
            "weight: Input should be greater than or equal to 0, received '-1'",
        ),
        (
            (*("fit-prior", "--statistics", "s", "--initial", "i", "--output", "o", "--iterations", "c"), "--weight=x"),
            "weight: Input should be a valid number",
        ),
        (("generate", "--flow", "f", "--prior", "p", "--output", "o", "--temperature", "0"), "temperature: Input"),
        (
            (
                *("table", "--name", "t", "--metrics", "m", "--reference", "r", "--output", "o", "--priors", "{}"),
                *("--table", '{"experiments": [{"dataset": "d", "lamdas": [1]}]}'),
            ),
            "lamdas' (did you mean 'lambdas'?)",
        ),
    ],
)
def test_a_wrong_setting_is_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(list(arguments)) == 1
    assert message in error_line(capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments", [("start-flux",), (*START, "--unknown", "1"), (*START, "--seed"), (*START, "--training.epohcs", "3")]
)
def test_wrong_usage_ends_with_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    assert end.value.code == 2
    assert "usage: nfpi" in capsys.readouterr().err


STAGES_WITH_MISSING_FILES = {
    "prepare-data": ("--dataset", '{"source": "imagefolder", "folder": "missing"}', "--output", "o"),
    "encode-data": (
        *("--name", "n", "--dataset", '{"source": "imagefolder", "folder": "missing", "vae": "v"}'),
        *("--output", "o"),
    ),
    "start-flow": ("--data", "missing", "--output", "o"),
    "fit-prior": (
        *("--statistics", "missing", "--initial", "missing", "--weight", "1"),
        *("--output", "o/p", "--iterations", "o/i.csv"),
    ),
    "train-flow": ("--data", "missing", "--state", "missing", "--prior", "missing", "--output", "o"),
    "import-release": ("missing", "--data", "missing", "--output", "o"),
    "evaluate": ("--data", "missing", "--flow", "missing", "--prior", "missing", "--output", "o/m.json"),
    "generate": ("--flow", "missing", "--prior", "missing", "--output", "o"),
    "augment": ("--data", "missing", "--flow", "missing", "--output", "o"),
    "train-classifier": ("--data", "missing", "--generated", "missing", "--output", "o"),
    "test-classifier": ("missing", "--data", "missing", "--output", "o/m.json"),
    "embed": ("--data", "missing", "--figure", '{"dataset": "d"}', "--output", "o/e.csv"),
    "map-convergence": (
        *("--statistics", "missing", "--initial", "missing", "--figure", '{"dataset": "d"}'),
        *("--output", "o/m.csv"),
    ),
    "draw-samples": (
        *("--flow", "missing", "--prior", "missing", "--figure", '{"dataset": "d", "weight": 1}'),
        *("--output", "o/f"),
    ),
    "draw-augmentations": (
        *("--data", "missing", "--flow", "missing"),
        *("--figure", '{"dataset": "d", "weight": 1, "classes": ["0"]}', "--output", "o/f"),
    ),
    "collect": ("digits/fpi/lambda=1/seed=0/missing/metrics.json", "--root", ".", "--output", "o/m.csv"),
    "table": (
        *("--name", "t", "--table", '{"experiments": [{"dataset": "d", "lambdas": [1]}]}', "--priors", "{}"),
        *("--metrics", "missing", "--reference", "missing", "--output", "o"),
    ),
    "figure": ("missing", "--name", "accuracy_against_weight", "--output", "o/f"),
    "export": ("--images", "missing", "--output", "o"),
}


@pytest.mark.parametrize(("stage", "arguments"), STAGES_WITH_MISSING_FILES.items())
def test_a_missing_file_is_named_in_one_line(stage, arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([stage, *arguments]) == 1
    assert "missing" in error_line(capsys)
    assert list(tmp_path.iterdir()) == []


def test_every_stage_is_tried_with_a_missing_file():
    reading_none = {"benchmark", "download-weights"}
    assert {*STAGES_WITH_MISSING_FILES} == {*STAGES} - reading_none


@pytest.mark.parametrize("file", ["flow", "prior"])
def test_a_truncated_file_is_named_in_one_line(leaf, root, file, tmp_path, capsys):
    for name in ("flow", "prior"):
        content = (leaf / f"flow/{name}.safetensors").read_bytes()
        (tmp_path / f"{name}.safetensors").write_bytes(content[:-100] if name == file else content)
    trained = ("--flow", tmp_path / "flow.safetensors", "--prior", tmp_path / "prior.safetensors")
    status = call("evaluate", "--data", root / "digits/splits", *trained, "--output", tmp_path / "new/metrics.json")
    assert status == 1
    line = error_line(capsys)
    assert f"{file}.safetensors: expected a safetensors file, received a damaged one" in line
    assert not (tmp_path / "new").exists()


def test_a_fault_is_all_that_stands_on_stderr(tmp_path):
    """In a process of its own, with the log as it is for a user."""
    arguments = ["train-flow", "--data", "d", "--state", "s.safetensors", "--prior", "p.safetensors", "--output", "o"]
    done = subprocess.run([sys.executable, "-m", "nfpi.cli", *arguments], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "nfpi: error: p.safetensors: there is no such file\n"
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_traceback_on_request(monkeypatch):
    monkeypatch.setenv("NFPI_TRACEBACK", "1")
    with pytest.raises(ValueError, match="there is no such file"):
        main(["evaluate", "--data", "d", "--flow", "f", "--prior", "p", "--output", "o"])


# ---- files that are whole but do not belong together --------------------------------------------------------


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gaussians and images of another shape and number of classes."""
    import torch

    from nfpi.data import write_image_set
    from nfpi.priors import GaussianPrior
    from nfpi.runtime.tensors import save_prior

    folder = tmp_path_factory.mktemp("other")
    header = {"start": "data", "seed": 0, "weight": 0.0}
    for name, size in (("fewer_classes", (3, 64)), ("other_dimensions", (10, 48))):
        prior = GaussianPrior(torch.randn(size, dtype=torch.float64), torch.ones(size, dtype=torch.float64))
        save_prior(folder / f"{name}.safetensors", prior, header)
    for split in ("train", "validation", "test"):
        generator = np.random.default_rng(0)
        images = generator.integers(0, 256, (20, 6, 6, 3), np.uint8)
        labels = np.repeat(np.arange(2), 10)
        write_image_set(folder / "splits" / split, images, labels, ["a", "b"], name="ab", split=split, flip=True)
    return folder


@pytest.mark.parametrize("prior", ["fewer_classes", "other_dimensions"])
@pytest.mark.parametrize("stage", ["train-flow", "evaluate"])
def test_a_prior_of_other_data_is_refused_in_one_line(root, leaf, other, stage, prior, tmp_path, capsys):
    arguments = {
        "train-flow": (
            *("--state", root / "digits/start/data/seed=3/state.safetensors"),
            *("--training", json.dumps(TRAINING)),
        ),
        "evaluate": ("--flow", leaf / "flow/flow.safetensors"),
    }[stage]
    common = ("--data", root / "digits/splits", "--prior", other / f"{prior}.safetensors")
    assert call(stage, *arguments, *common, "--output", tmp_path / "new/output") == 1
    error_line(capsys)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("stage", ["train-flow", "evaluate", "start-flow", "train-classifier"])
def test_images_of_other_data_are_refused_in_one_line(root, leaf, other, stage, tmp_path, capsys):
    arguments = {
        "train-flow": (
            *("--state", root / "digits/start/data/seed=3/state.safetensors"),
            *("--prior", leaf / "fit/prior.safetensors", "--training", json.dumps(TRAINING)),
        ),
        "evaluate": ("--flow", leaf / "flow/flow.safetensors", "--prior", leaf / "flow/prior.safetensors"),
        "start-flow": ("--training", json.dumps(TRAINING)),  # three levels of an image of 6×6
        "train-classifier": ("--generated", leaf / "generated/1", "--classifier.train-on", "both"),
    }[stage]
    assert call(stage, *arguments, "--data", other / "splits", "--output", tmp_path / "new/output") == 1
    error_line(capsys)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("damage", ["{", '{"metrics": {}}'])
def test_damaged_metrics_of_a_candidate_are_named_in_one_line(root, leaf, damage, tmp_path, capsys):
    candidate = tmp_path / "temperature=1"
    candidate.mkdir()
    (candidate / "model.safetensors").write_bytes((leaf / "resnet18/1/model.safetensors").read_bytes())
    (candidate / "metrics.json").write_text(damage)
    output = tmp_path / "new/metrics.json"
    assert (
        main(["test-classifier", str(candidate), "--data", str(root / "digits/splits"), "--output", str(output)]) == 1
    )
    assert str(candidate / "metrics.json") in error_line(capsys)
    assert not output.parent.exists()
