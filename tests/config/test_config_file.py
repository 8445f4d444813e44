"""config.yaml writes every setting of the paper out, and says what the classes of settings say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
import yaml

from nfpi.config.base import Settings
from nfpi.config.classifiers import ClassifierConfig, StandardAugmentation
from nfpi.config.cluster import JobName, Resources
from nfpi.config.datasets import DatasetConfig
from nfpi.config.flows import FLOWS, EvaluationConfig, GenerationConfig, NfaConfig, TrainingConfig
from nfpi.config.priors import PRIORS
from nfpi.config.resolution import SettingsFile, build_json_schema

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "config.yaml").read_text(encoding="utf-8")
CONFIG: dict[str, Any] = yaml.safe_load(TEXT)

GROUPS: dict[str, type[Settings]] = {
    "training": TrainingConfig,
    "evaluation": EvaluationConfig,
    "generation": GenerationConfig,
    "nfa": NfaConfig,
    "datasets.digits": DatasetConfig,
    "flows.mef": FLOWS.get_block_type("matrix_exponential"),
    "flows.glow": FLOWS.get_block_type("glow"),
    "flows.transformer": FLOWS.get_block_type("transformer"),
    "flows.zuko": FLOWS.get_block_type("zuko"),
    "flows.identity": FLOWS.get_block_type("identity"),
    "priors.fpi": PRIORS.get_block_type("fixed_point"),
    "priors.repeated": PRIORS.get_block_type("repeated_fixed_point"),
    "priors.nfgd_linear": PRIORS.get_block_type("gradient_descent"),
    "classifiers.resnet18": ClassifierConfig,
    "classifiers.resnet18.standard": StandardAugmentation,
}
"""Where the settings of each class stand, with the values that are its defaults."""

NOT_DEFAULTS = {
    "datasets.digits": {"validation_fraction", "flip"},  # a small set; a mirrored digit is no digit
    "flows.glow": {"training"},
    "flows.transformer": {"training"},
    "flows.identity": {"training"},
}
"""Settings that are those of the block itself."""

ELSEWHERE = {
    "datasets.digits": {"overrides": "datasets.cifar100"},
    "priors.repeated": {
        name: "priors.fpi" for name in PRIORS.get_block_type("fixed_point").model_fields if name != "method"
    },
    "classifiers.resnet18": {
        "architecture": "classifiers.swin",
        "warmup_epochs": "classifiers.swin",
        "nfa_probability": "classifiers.swin",
        "pretrained": "classifiers.eva02_pretrained",
        "weights": "classifiers.eva02_pretrained",
        "image_size": "classifiers.eva02_pretrained",
        "start_from": "classifiers.eva02",
    },
}
"""Settings that stand where they matter first."""

LEFT_OUT = {
    "tables",  # in presets
    "figures",  # in presets
    "claims",  # in presets
    "extends",  # in presets
}
"""Groups that are no settings of the paper."""


def block_at(path: str) -> dict[str, Any]:
    found = CONFIG
    for key in path.split("."):
        found = found[key]
    return found


def settings_of(model: type[Settings], values: dict[str, Any]) -> dict[str, Any]:
    """Values as the class has them, without those that are groups of their own."""
    return {name: value for name, value in model.model_validate(values).model_dump().items() if name != "standard"}


@pytest.mark.parametrize(("path", "model"), GROUPS.items())
def test_every_value_is_the_default_of_its_class(path, model):
    own = NOT_DEFAULTS.get(path, set())
    written = {name: value for name, value in block_at(path).items() if name not in own}
    expected = settings_of(model, {"source": "digits"} if model is DatasetConfig else {})
    assert {name: value for name, value in settings_of(model, written).items() if name not in own} == {
        name: value for name, value in expected.items() if name not in own
    }


@pytest.mark.parametrize(("path", "model"), GROUPS.items())
def test_every_setting_of_a_class_is_written(path, model):
    elsewhere = ELSEWHERE.get(path, {})
    assert set(block_at(path)) | set(elsewhere) == set(model.model_fields)
    for name, other in elsewhere.items():
        assert name not in block_at(path)
        assert name in block_at(other)


def test_every_group_is_written():
    assert set(CONFIG) | LEFT_OUT == set(SettingsFile.model_fields)
    assert not LEFT_OUT & set(CONFIG)
    for name in ("preset", "results", "extensions", "seeds", "cluster"):
        default = SettingsFile.model_fields[name].default
        assert CONFIG[name] == (default.as_posix() if isinstance(default, Path) else default)


def test_every_job_has_its_resources():
    assert set(CONFIG["resources"]) == set(get_args(JobName))
    for line in CONFIG["resources"].values():
        assert set(line) == set(Resources.model_fields)


def test_a_backbone_is_written_for_every_kind_of_flow():
    assert [flow["kind"] for flow in CONFIG["flows"].values()] == [kind for kind in FLOWS if kind != "trained"]


# ---- the schema ---------------------------------------------------------------------------------------------


def test_the_schema_in_the_repository_is_that_of_the_settings():
    path = ROOT / "workflow/schemas/config.schema.json"
    assert path.read_text(encoding="utf-8") == json.dumps(build_json_schema(), indent=2, ensure_ascii=False) + "\n", (
        "write it anew: python docs/schema.py"
    )


@pytest.mark.parametrize("file", ["config.yaml", *sorted(path.name for path in (ROOT / "presets").glob("*.yaml"))])
def test_the_files_of_the_project_satisfy_the_schema(file):
    path = ROOT / file if file == "config.yaml" else ROOT / "presets" / file
    jsonschema.validate(_with_numbers(yaml.safe_load(path.read_text(encoding="utf-8"))), build_json_schema())


def _with_numbers(value: Any) -> Any:
    """PyYAML reads `1e4` as text, editors as a number."""
    if isinstance(value, dict):
        return {key: _with_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_numbers(item) for item in value]
    try:
        return float(value) if isinstance(value, str) and "e" in value else value
    except ValueError:
        return value
