"""The command line as a user calls it, and small runs on digits that tests of stages begin from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from nfpi.cli import main
from nfpi.results.tables.rows import TableRow
from nfpi.runs import CANDIDATE, COMMON_SPLITS, GENERATED, INITIAL, SPLITS, TRAINED_CLASSIFIER, Run
from nfpi.runtime.divergence import Diverged, mark_diverged
from nfpi.stages.base import Stage
from nfpi.stages.commands import STAGES

ROOT = Path(__file__).parents[2]
IMAGE_SET = {"images.npy", "labels.npy", "meta.json"}
FLOW = {"num_flows": [1], "num_blocks": [1], "hidden_channels": [8]}
TRAINING = {"epochs": 3, "batch_size": 64, "warmup_steps": 4, "initialization_images": 100, "augmentation": "none"}
RESNET18 = {"epochs": 1, "batch_size": 10, "standard": {"crop_padding": 0}}
STAGE: dict[str, type[Stage]] = {stage.command: stage for stage in STAGES}


def call(*arguments: object) -> int:
    """Run a command and return its exit status."""
    return main([str(argument) for argument in arguments])


def check_call(*arguments: object) -> None:
    """Run a command that must exit with status 0."""
    assert call(*arguments) == 0, arguments


def format_options(**values: object) -> list[str]:
    """Return options of the command line: groups of settings as JSON, True as a switch; None is left out."""
    options: list[str] = []
    for name, value in values.items():
        if value is None:
            continue
        option = f"--{name.replace('_', '-')}"
        text = json.dumps(value, default=str) if isinstance(value, (Mapping, list)) else str(value)
        options += [option] if value is True else [option, text]
    return options


def list_files(folder: Path) -> set[str]:
    """List all files below a folder, by relative path."""
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def read_error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """Read stderr, which must be a single line."""
    text = capsys.readouterr().err
    assert text.startswith("nfpi: error: "), text
    assert text.count("\n") == 1, text
    assert text.endswith("\n")
    return text.strip()


@dataclass(frozen=True)
class SmallRun:
    """A run on a few digits, whose files lie below `root` as the workflow lays them out.

    Attributes:
        root: folder of the run, and of others that share its splits and its initial state.
        weight: λ.
        images: settings of the data set.
        flow: settings of the flow.
        training: settings of the training.
        prior: settings of the fit.
        classifier: settings of the classifier.
        generation: how many images are generated.
        temperatures: of the generated images.
        seed: of everything random.
    """

    root: Path
    weight: float = 100
    images: dict[str, Any] = field(default_factory=lambda: {"train_per_class": 20, "test_per_class": 8, "flip": False})
    flow: dict[str, Any] = field(default_factory=lambda: FLOW)
    training: dict[str, Any] = field(default_factory=lambda: TRAINING)
    prior: dict[str, Any] = field(default_factory=dict)
    classifier: dict[str, Any] = field(default_factory=lambda: RESNET18)
    generation: dict[str, Any] = field(default_factory=lambda: {"per_class": 4, "batch_size": 15})
    temperatures: tuple[float, ...] = (0.8, 1)
    seed: int = 3

    @property
    def identity(self) -> Run:
        """Identity of the flow."""
        return Run(dataset="digits", flow="mef", prior="fpi", weight=self.weight, seed=self.seed)

    @property
    def tested(self) -> Run:
        """Identity of the classifier of its images."""
        return replace(self.identity, classifier="resnet18")

    @property
    def measured(self) -> Run:
        """Identity of the measurement of its images by a classifier trained on real ones."""
        return replace(self.tested, augmentation="standard")

    @property
    def reference(self) -> Path:
        """Folder of that classifier, which all runs share."""
        return self.root / TRAINED_CLASSIFIER.format(**self.measured.without_flow.wildcards)

    @property
    def refitted(self) -> Run:
        """Identity of the flow with the class moments of its training latents as Gaussians."""
        return replace(self.identity, prior="fpi+moments")

    @property
    def row(self) -> dict[str, Any]:
        """Its row of a table, as the workflow passes it to the stage."""
        return TableRow(
            experiment=0,
            label="FPI",
            dataset="digits",
            flow="mef",
            prior="fpi",
            weight=self.weight,
            classifier="resnet18",
            flow_runs=(self.identity,),
            classifier_runs=(self.tested,),
        ).model_dump(mode="json")

    @property
    def splits(self) -> Path:
        """Folder of the splits."""
        return self.root / SPLITS.format(dataset="digits", splits=COMMON_SPLITS)

    @property
    def initial(self) -> Path:
        """Folder of the initial state."""
        return self.root / INITIAL.format(dataset="digits", flow="mef", start="data", seed=self.seed)

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return self.root / self.identity.folder

    @property
    def model(self) -> Path:
        """Folder of the model."""
        return self.folder / "model"

    def locate_folder(self, template: str, temperature: float) -> Path:
        """Return the folder of the images of a temperature, or of the classifier trained on them, by path template."""
        return self.root / template.format(**self.tested.wildcards, temperature=f"{temperature:g}")

    def make_command(self, stage: str, *positional: object, **changes: Any) -> tuple[str, ...]:
        """Make the command line of a stage of this run.

        Args:
            stage: name of the subcommand.
            positional: positional arguments instead of the stage's own.
            changes: options that replace those of the stage; a group of settings is merged with the stage's.
        """
        temperature = changes.pop("temperature", 1)
        options = self._make_options(temperature)[stage]
        for name, value in changes.items():
            known = options.get(name)
            options[name] = {**known, **value} if isinstance(known, dict) and isinstance(value, dict) else value
        if stage == "test-classifier" and not positional:
            positional = tuple(self.locate_folder(CANDIDATE, temperature) for temperature in self.temperatures)
        if stage == "measure-samples":
            positional = tuple(self.locate_folder(GENERATED, temperature) for temperature in self.temperatures)
        return (stage, *map(str, positional), *format_options(**options))

    def _make_options(self, temperature: float) -> dict[str, dict[str, Any]]:
        """Return the options of each stage."""
        generated = self.locate_folder(GENERATED, temperature)
        return {
            "prepare-data": {
                "name": "digits",
                "dataset": self.images,
                "output": self.splits,
            },
            "start-flow": {
                "data": self.splits,
                "flow": self.flow,
                "training": self.training,
                "seed": self.seed,
                "output": self.initial,
            },
            "fit-prior": {
                "initial": self.initial,
                "prior": self.prior,
                "weight": self.weight,
                "output": self.folder / "fit",
            },
            "train-flow": {
                "data": self.splits,
                "initial": self.initial,
                "prior": self.folder / "fit/prior.safetensors",
                "training": self.training,
                "output": self.folder,
            },
            "evaluate": {
                "data": self.splits,
                "model": self.model,
                "history": self.folder / "log.csv",
                "initial": self.initial,
                "identity": self.identity.to_json(),
                "evaluation": {"batch_size": 100},
                "output": self.folder,
            },
            "refit-prior": {
                "data": self.splits,
                "model": self.model,
                "refit": "moments",
                "batch_size": 100,
                "output": self.root / self.refitted.folder,
            },
            "generate": {
                "model": self.model,
                "temperature": temperature,
                **self.generation,
                "seed": self.seed,
                "output": generated,
            },
            "augment": {
                "data": self.splits,
                "model": self.model,
                "nfa": {"axes": 5, "variants": 2},
                "seed": self.seed,
                "output": self.folder / "augmented",
            },
            "train-classifier": {
                "data": self.splits,
                "generated": generated,
                "classifier": self.classifier,
                "name": "resnet18",
                "seed": self.seed,
                "output": self.locate_folder(CANDIDATE, temperature),
            },
            "test-classifier": {
                "data": self.splits,
                "identity": self.tested.to_json(),
                "output": self.root / self.tested.folder,
            },
            "extract-features": {
                "name": "features",
                "dataset": {"source": "features", "features": {"dataset": "digits", "classifier": "resnet18_real"}},
                "data": self.splits,
                "classifier": self.reference,
                "output": self.root / SPLITS.format(dataset="features", splits=COMMON_SPLITS),
            },
            "measure-samples": {
                "data": self.splits,
                "reference": self.reference,
                "tested": self.root / self.tested.folder,
                "identity": self.measured.to_json(),
                "output": self.root / self.measured.folder,
            },
        }

    def begin(self) -> None:
        """Make the splits, the initial state, and a classifier of the real images."""
        for stage in ("prepare-data", "start-flow"):
            check_call(*self.make_command(stage))
        on_real = {"generated": None, "classifier": {"train_on": "real"}, "images_per_class": 4}
        check_call(*self.make_command("train-classifier", **on_real, output=self.reference))

    def train(self) -> None:
        """Fit, train and evaluate."""
        for stage in ("fit-prior", "train-flow", "evaluate"):
            check_call(*self.make_command(stage))

    def classify(self) -> None:
        """Train a classifier on images of each temperature, test the best one, and measure its images."""
        for temperature in self.temperatures:
            for stage in ("generate", "train-classifier"):
                check_call(*self.make_command(stage, temperature=temperature))
        for stage in ("test-classifier", "measure-samples"):
            check_call(*self.make_command(stage))


@pytest.fixture(scope="session")
def started_run(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """Splits of digits and an initial state."""
    run = SmallRun(tmp_path_factory.mktemp("results"))
    run.begin()
    return run


@pytest.fixture(scope="session")
def trained_run(started_run: SmallRun) -> SmallRun:
    """A flow that was fitted, trained and evaluated."""
    started_run.train()
    return started_run


@pytest.fixture(scope="session")
def complete_run(trained_run: SmallRun) -> SmallRun:
    """A run from its fit to the test of its classifier."""
    trained_run.classify()
    return trained_run


@pytest.fixture(scope="session")
def diverged_run(started_run: SmallRun) -> SmallRun:
    """A complete run whose fit diverges: at such a weight the exact update loses A's definiteness."""
    run = replace(started_run, weight=1_000_000, prior={"update": "exact"})
    run.train()
    run.classify()
    return run


@pytest.fixture(scope="session")
def tables(complete_run: SmallRun, diverged_run: SmallRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with table2 of a complete run and of one that diverged."""
    folder = tmp_path_factory.mktemp("tables")
    runs = (complete_run, diverged_run)
    options: dict[str, Any] = {
        "name": "table2",
        "table": {"title": "Small", "metrics": ["nf_acc", "bits_per_dim", "cnn_acc"]},
        "rows": [run.row for run in runs],
        "reference": ROOT / "workflow/reference/paper.csv",
        "root": complete_run.root,
        "output": folder / "tables",
    }
    check_call("table", *format_options(**options))
    return folder / "tables"


@pytest.fixture
def fault() -> Diverged:
    """A divergence to mark the files of a test with."""
    fault = Diverged(iteration=3, class_index=1, quantity="variance", weight=1e6)
    fault.context = {"seed": 3}
    return fault


@pytest.fixture
def diverged_images(tmp_path: Path, fault: Diverged) -> Path:
    """A folder of images, as a diverged fit leaves it."""
    folder = tmp_path / "diverged"
    mark_diverged([folder / name for name in IMAGE_SET], fault)
    return folder
