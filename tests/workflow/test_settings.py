"""What a user sees when a setting is wrong, and the paper's settings."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from nfpi.config.flows import MatrixExponentialSettings
from nfpi.config.resolution import resolve

from .conftest import ROOT, Project


def test_a_wrong_setting_is_one_line_that_names_the_key(fresh_project: Project) -> None:
    refused = fresh_project.read_refusal("table2", "--config", "training={epoch: 3}")
    assert "unknown key 'training.epoch' (did you mean 'epochs'?)" in refused


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
    rows = [row for row in config.tables["table3"].experiments if row.lambdas != [0]]
    weights = {(row.dataset, row.prior): row.lambdas for row in rows}
    assert (weights["cifar10", "fpi"], weights["cifar100", "fpi"]) == ([3e5], [3e6])
    assert (weights["cifar10", "mean_only"], weights["cifar100", "mean_only"]) == ([5e5], [7.5e6])
    kept = {name: config.datasets[name].train_per_class for name in ("cifar10", "cifar10_500", "cifar100_50")}
    assert kept == {"cifar10": None, "cifar10_500": 500, "cifar100_50": 50}
    assert config.for_dataset("cifar100_50").generation == cifar100.generation
    assert config.for_dataset("cifar100_50").classifiers == cifar100.classifiers
    assert config.datasets[config.figures["figure1"].dataset].refit
    resnet18, swin, eva02 = (cifar10.classifiers[name] for name in ("resnet18", "swin", "eva02"))
    assert (resnet18.learning_rate, resnet18.max_learning_rate, resnet18.batch_size) == (1e-3, 0.1, 100)
    assert (swin.learning_rate, swin.weight_decay, swin.batch_size, swin.epochs) == (2e-3, 5e-2, 256, 1000)
    assert (eva02.learning_rate, eva02.batch_size, eva02.epochs) == (1e-5, 64, 3)
    assert (eva02.image_size, eva02.start_from) == (448, "eva02_pretrained")


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
