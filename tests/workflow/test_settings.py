"""What a user sees when a setting is wrong, and the paper's settings."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from nfpi.config.flows import MatrixExponentialSettings
from nfpi.config.resolution import resolve

from .conftest import ROOT, Project


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("trainig={epochs: 3}", r"unknown key 'trainig' \(did you mean 'training'\?\)"),
        ("training={epoch: 3}", r"unknown key 'training\.epoch' \(did you mean 'epochs'\?\)"),
        ("training={epochs: -1}", r"^config: .*training\.epochs: .* received '-1'"),
        ("resources={train_flw: {gpu: 1}}", r"unknown key 'resources\.train_flw' \(did you mean 'train_flow'\?\)"),
        ("preset=papr", r"preset: unknown preset 'papr' \(did you mean 'paper'\?\)"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_the_key(fresh_project: Project, setting: str, message: str) -> None:
    assert re.search(message, fresh_project.read_refusal("table2", "--config", setting))


def test_a_wrong_setting_of_a_file_is_one_line_that_names_its_origin(fresh_project: Project) -> None:
    def read(*arguments: str) -> str:
        return fresh_project.read_refusal("table2", *arguments, overlay={"training": {"epochs": -1}})

    assert read().startswith("config: --config or --configfile: training.epochs: ")
    assert read("--config", "preset=digits").startswith("config: --config or --configfile: training.epochs: ")
    fresh_project.write("mine.yaml", {"training": {"epochs": -1}})
    refused = fresh_project.read_refusal("all", "--config", "preset=mine.yaml", "seeds=[3]")
    assert refused.startswith("config: preset mine: training.epochs: ")


def test_the_paper_preset_has_the_papers_settings() -> None:
    config = resolve(ROOT / "config.yaml", ROOT / "presets", {"preset": "paper"}).config
    assert config.seeds == [1999]
    papers = MatrixExponentialSettings(num_flows=[8] * 3, num_blocks=[8, 4, 2], hidden_channels=[128] * 3)
    assert papers.model_dump().items() <= config.flows["mef"].model_dump().items()
    assert config.flows["mef"].kind == "matrix_exponential"
    assert {experiment.flow for table, experiment in config.iterate_experiments() if table != "table7"} == {"mef"}
    assert (config.training.epochs, config.training.batch_size) == (500, 512)
    cifar10, cifar100 = config.for_dataset("cifar10"), config.for_dataset("cifar100")
    assert (cifar10.generation.per_class, cifar10.classifiers["resnet18"].epochs) == (5000, 30)
    assert (cifar100.generation.per_class, cifar100.classifiers["resnet18"].epochs) == (500, 50)
    assert config.datasets["cifar100"].validation_fraction == 0.05
    training = config.resolve_training("cifar10", "mef")
    assert (training.optimizer, training.schedule, training.weight_decay) == ("adamax", "constant", 0)
    assert (training.learning_rate, training.warmup_steps, training.fit_after_epochs) == (0.01, 1000, 1)
    assert (training.ema_decay, training.ema_power, training.initialization_images) == (0.9999, 0.75, 1024)
    assert (training.augmentation, training.precision) == ("released", "auto")
    assert config.generation.temperatures == [0.7, 0.8, 0.9, 1.0, 1.1, 1.2]
    assert config.tables["table2"].experiments[0].lambdas == [0, 1e4, 1e5, 1e6, 3e6, 1e7]
    weights = {
        (one.dataset, one.prior): one.lambdas for one in config.tables["table3"].experiments if one.lambdas != [0]
    }
    assert weights == {
        ("cifar10", "mean_only"): [5e5],
        ("cifar10", "variance_only"): [1e5],
        ("cifar10", "fpi"): [3e5],
        ("cifar100", "mean_only"): [7.5e6],
        ("cifar100", "variance_only"): [2e6],
        ("cifar100", "fpi"): [3e6],
        ("cifar10_500", "mean_only"): [5e5],
        ("cifar10_500", "variance_only"): [1e5],
        ("cifar100_50", "variance_only"): [2e6],
    }
    kept = {name: config.datasets[name].train_per_class for name in ("cifar10", "cifar10_500", "cifar100_50")}
    assert kept == {"cifar10": None, "cifar10_500": 500, "cifar100_50": 50}
    assert config.for_dataset("cifar100_50").generation == cifar100.generation
    assert config.for_dataset("cifar100_50").classifiers == cifar100.classifiers
    figure1 = config.figures["figure1"]
    assert (figure1.images, figure1.samples_per_class) == (50_000, 1000)
    assert config.datasets[figure1.dataset].refit


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "resnet18",
            {"optimizer": "sgd", "schedule": "one_cycle", "learning_rate": 1e-3, "max_learning_rate": 0.1}
            | {"momentum": 0.9, "weight_decay": 5e-4, "batch_size": 100, "epochs": 30},
        ),
        (
            "swin",
            {"optimizer": "adamw", "schedule": "cosine", "learning_rate": 2e-3, "weight_decay": 5e-2}
            | {"batch_size": 256, "epochs": 1000, "architecture": {"layer_norm_eps": 1e-6}}
            | {"repeats": 3, "label_smoothing": 0.1, "normalization": "dataset", "warmup_epochs": 10},
        ),
        (
            "eva02",
            {"optimizer": "sgd", "momentum": 0, "schedule": "constant", "learning_rate": 1e-5, "gradient_clip": 1}
            | {"batch_size": 64, "epochs": 3, "image_size": 448, "start_from": "eva02_pretrained", "architecture": {}},
        ),
        ("eva02_pretrained", {"pretrained": True, "epochs": 0, "image_size": 448, "architecture": {}}),
    ],
)
def test_the_paper_preset_has_the_papers_classifiers(name: str, expected: dict[str, Any]) -> None:
    config = resolve(ROOT / "config.yaml", ROOT / "presets", {"preset": "paper"}).config
    settings = config.for_dataset("cifar10").classifiers[name].model_dump()
    assert {key: settings[key] for key in expected} == expected


def test_conda_and_pip_ask_for_the_same_versions() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    names = {"pytorch": "torch", "matplotlib-base": "matplotlib", "snakemake-minimal": "snakemake"}
    conda = {
        names.get(name, name) + version
        for name, version in (
            re.fullmatch(r"([\w-]+)(.*)", entry).groups()  # type: ignore[union-attr]
            for entry in entries
        )
    }
    extras = project["optional-dependencies"]
    pip_installs = [*project["dependencies"], *extras["imagenet"], *extras["slurm"]]
    assert conda == {*pip_installs, f"python{project['requires-python']}", "pip"}


def test_the_measured_environment_is_within_the_ranges() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    locked = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    versions = {canonicalize_name(name): version for name, version in locked.items()}
    for dependency in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]:
        requirement = Requirement(dependency)
        version = versions[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{dependency}: {version} in requirements.lock"


def test_a_release_has_one_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    heading = re.search(r"^## .+", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert heading
    assert version in heading[0]


def test_each_extra_is_tested() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    extras.pop("docs")  # `.ci/run` builds the site with it
    assert set().union(*extras.values()) == set(extras["test"])


def test_nothing_but_shared_ground_stands_in_the_default_profile() -> None:
    profile = yaml.safe_load((ROOT / "profiles/default/config.yaml").read_text())
    limits = {"executor", "cores", "jobs", "resources", "default-resources", "set-resources", "set-threads"}
    assert not limits & set(profile)
    assert not [path for path in (ROOT / "workflow").rglob("*.smk") if "retries:" in Path(path).read_text()]
