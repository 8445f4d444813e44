"""Files of the user's own that add variants, and what goes wrong in them."""

from __future__ import annotations

import hashlib
import re

import pytest

from nfpi.config.base import ConfigError
from nfpi.config.extensions import describe_extension_fault, hash_extension, load_extensions
from nfpi.config.flows import FLOWS
from nfpi.config.metrics import METRICS, metric
from nfpi.config.priors import PRIORS
from nfpi.config.registry import REGISTRIES
from nfpi.config.resolution import build_json_schema

SIMPLEX = '''
from nfpi.config.base import Settings
from nfpi.config.priors import PRIORS

class Simplex(Settings):
    radius: float = 10.0
    """distance of every mean from the centre of all"""

PRIORS.register("simplex", Simplex, lambda *arguments: None, uses_weight=False, learned=False)
'''
SURENESS = """
from nfpi.config.metrics import register_metric

@register_metric("sureness", label="Sureness", higher_is_better=False, decimals=3)
def sureness(log_prob, labels):
    return 0.5
"""


def test_an_extension_registers_a_prior_that_the_config_uses(project):
    path = project.write("mine/simplex.py", SIMPLEX)
    preset = project.write(
        "mine/sweep.yaml",
        {
            "extensions": ["simplex.py"],
            "priors": {"mine": {"method": "simplex", "start": "identity", "radius": 20}},
            "tables": {"t": {"experiments": [{"dataset": "digits", "prior": "mine"}]}},
        },
    )
    config = project.resolve_config({"preset": str(preset)})
    assert config.priors["mine"].radius == 20
    assert config.priors["mine"].start == "identity"
    assert PRIORS.extract_settings(config.priors["mine"]).model_dump() == {"radius": 20.0}
    (experiment,) = config.tables["t"].experiments
    assert experiment.weights == [0.0]
    assert config.list_extensions(flow="mef", prior="mine") == [path.resolve()]
    assert config.list_extensions(flow="mef", prior="fpi", classifier="resnet18") == []


def test_zero_of_a_prior_that_keeps_the_initial_gaussians_then_is_the_baseline(project):
    text = SIMPLEX.replace("uses_weight=False", "uses_weight=True, keeps_initial_at_zero=True")
    path = project.write("simplex.py", text)
    config = project.resolve_config(
        extensions=[str(path)], priors={"fpi": {}, "mine": {"method": "simplex", "start": "random"}}
    )
    assert config.run("digits", "mef", "mine", 0, 1).prior == "baseline-random"
    assert config.run("digits", "mef", "mine", 1, 1).prior == "mine"


@pytest.mark.parametrize(("uses_weight", "weights"), [(False, {"lambdas": [1, 10]}), (True, {})])
def test_a_prior_has_weights_if_and_only_if_it_uses_them(project, uses_weight, weights):
    path = project.write("simplex.py", SIMPLEX.replace("uses_weight=False", f"uses_weight={uses_weight}"))
    with pytest.raises(ConfigError, match=r"tables\.t: lambdas.*'mine'"):
        project.resolve(
            extensions=[str(path)],
            priors={"fpi": {}, "mine": {"method": "simplex"}},
            tables={"t": {"experiments": [{"dataset": "digits", "prior": "mine"} | weights]}},
        )


@pytest.mark.parametrize(("block", "key"), [({"radios": 1}, "priors.mine.radios"), ({"radius": "x"}, "mine.radius")])
def test_a_setting_of_ones_own_is_checked_as_all_others(project, block, key):
    path = project.write("simplex.py", SIMPLEX)
    with pytest.raises(ConfigError, match=re.escape(key)):
        project.resolve(extensions=[str(path)], priors={"fpi": {}, "mine": {"method": "simplex"} | block})


def test_a_metric_becomes_a_column_of_flows_and_of_classifiers_of_generated_images(project):
    path = project.write("sureness.py", SURENESS)
    tables = {"t": {"metrics": ["sureness", "cnn_sureness"], "experiments": [{"dataset": "digits", "lambdas": [0]}]}}
    config = project.resolve_config(extensions=[str(path)], tables=tables)
    assert config.tables["t"].metrics == ["sureness", "cnn_sureness"]
    own, of_generated = metric("sureness"), metric("cnn_sureness")
    assert (own.label, of_generated.label, of_generated.decimals) == ("Sureness", "CNN Sureness", 3)
    assert METRICS["sureness"].build([], []) == 0.5
    assert METRICS["sureness"].extension == path.resolve()


def test_a_digest_is_also_that_of_the_users_modules_that_a_file_imports(project, monkeypatch):
    folder = project.write("elsewhere/helper.py", "from package_of_mine import deeper\n").parent
    project.write("elsewhere/package_of_mine/__init__.py", "")
    deeper = project.write("elsewhere/package_of_mine/deeper.py", "import json, torch\n")
    monkeypatch.syspath_prepend(folder)
    path = project.write("sureness.py", "import helper_of_nobody, helper\n")
    digest = hash_extension(path)
    deeper.write_text("import json, numpy\n")
    assert hash_extension(path) != digest
    assert hash_extension(project.write("plain.py", "import json")) == hashlib.sha256(b"import json").hexdigest()


def test_a_file_is_run_once_and_again_when_it_has_changed(project):
    path = project.write("sureness.py", SURENESS)
    load_extensions([path])
    first = METRICS["sureness"]
    load_extensions([path])
    assert METRICS["sureness"] is first
    digest = hash_extension(path)
    project.write("sureness.py", SURENESS.replace("decimals=3", "decimals=1"))
    assert hash_extension(path) != digest
    load_extensions([path])
    assert metric("sureness").decimals == 1
    project.write("sureness.py", SIMPLEX)
    load_extensions([path])
    assert "simplex" in PRIORS
    assert "sureness" not in METRICS


IMPORTS = """
from nfpi.config import Settings; from nfpi.config.datasets import SOURCES
from nfpi.config.metrics import register_metric; from nfpi.config.priors import PRIORS
"""
FAULTS = [
    ("x = 1\ndef f(:\n", "2: SyntaxError"),
    ("x = 1\n\nraise RuntimeError('no\\nluck')\n", "3: RuntimeError: no luck"),
    ("\nimport no_such_module\n", "2: ModuleNotFoundError"),
    ("import sys\nsys.exit(3)\n", "2: SystemExit: 3"),
    ("exit()\n", "1: SystemExit"),
    (f"{IMPORTS}register_metric('nf_acc', label='x')\n", "4: ConfigError: metric 'nf_acc'"),
    (f"{IMPORTS}@register_metric('m', label='M')\ndef f(log_prob): ...\n", "4: ConfigError: metric 'm'"),
    (f"{IMPORTS}PRIORS.register('s', builder=lambda a, b=1: 0)\n", "4: ConfigError: prior method 's'"),
    (f"{IMPORTS}SOURCES.register('s', builder=3)\n", "4: ConfigError: source 's'"),
    (f"{IMPORTS}class S(Settings):\n    start: int = 1\nPRIORS.register('s', S)\n", "6: ConfigError: prior method 's'"),
]


@pytest.mark.parametrize(("text", "message"), FAULTS)
def test_a_fault_is_one_line_with_file_and_line_number(project, text, message):
    path = project.write("mine.py", text)
    with pytest.raises(ConfigError) as error:
        project.resolve(extensions=[str(path)])
    assert str(error.value).startswith(f"{path}:{message}")
    assert "\n" not in str(error.value)


def test_every_builder_of_the_project_takes_the_arguments_of_its_family():
    for registry in REGISTRIES:
        for name in registry:
            if registry[name].builder is not None:
                registry._check_builder(name, registry[name].build, registry.list_arguments(registry[name].traits))


def test_a_file_that_failed_registers_nothing_twice(project):
    path = project.write("mine.py", SURENESS + "raise RuntimeError\n")
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"mine\.py:7: RuntimeError"):
            load_extensions([path])
        assert "sureness" not in METRICS
    project.write("mine.py", SURENESS)
    load_extensions([path])
    assert metric("sureness").label == "Sureness"


def test_files_that_are_not_named_any_more_are_forgotten(project):
    paths = [project.write("one.py", SIMPLEX), project.write("two.py", SURENESS)]
    load_extensions(paths)
    load_extensions(paths[1:])
    assert "simplex" not in PRIORS
    assert "sureness" in METRICS
    project.resolve()
    assert "sureness" not in METRICS
    load_extensions(paths)
    assert "simplex" in PRIORS
    assert "sureness" in METRICS


def test_files_add_up_along_presets_and_what_the_user_passes(project):
    parent = project.write("parent/simplex.py", SIMPLEX)
    child = project.write("child/more.py", SURENESS)
    passed = project.write("passed.py", "")
    content = {"extensions": ["simplex.py"], "priors": {"mine": {"method": "simplex"}}}
    project.write("parent/parent.yaml", content)
    extending = {"extends": "../parent/parent.yaml", "extensions": ["more.py", "../parent/simplex.py"]}
    preset = project.write("child/child.yaml", extending)
    config = project.resolve_config({"preset": str(preset), "extensions": [str(passed)]})
    assert [file.resolve() for file in config.extensions] == [parent, child, passed]
    assert config.priors["mine"].method == "simplex"


def test_two_files_cannot_register_one_name(project):
    paths = [project.write(name, SURENESS) for name in ("one.py", "two.py")]
    with pytest.raises(ConfigError, match=r"two\.py:4: ConfigError: metric 'sureness'"):
        load_extensions(paths)


def test_a_missing_file_is_named(project):
    with pytest.raises(ConfigError, match=r"extensions.*none\.py"):
        project.resolve({"extensions": ["none.py"]})


def test_a_fault_that_arises_later_is_traced_to_the_file(project):
    path = project.write("mine.py", SURENESS.replace("return 0.5", "return 1 / 0"))
    load_extensions([path])
    with pytest.raises(ZeroDivisionError) as error:
        METRICS["sureness"].build([], [])
    assert describe_extension_fault(error.value) == f"{path.resolve()}:6: ZeroDivisionError: division by zero"
    assert describe_extension_fault(ValueError("not theirs")) is None


def test_the_schema_knows_what_is_registered(project):
    load_extensions([project.write("mine.py", SIMPLEX)])
    (block,) = build_json_schema()["properties"]["priors"]["patternProperties"].values()
    properties = {variant["title"]: set(variant["properties"]) for variant in block["anyOf"]}
    assert properties["Simplex"] == {"method", "start", "radius"}


def test_a_variant_may_have_no_settings_of_its_own(project):
    text = "from nfpi.config.flows import FLOWS\nFLOWS.register('plain', builder=lambda shape, settings: None)\n"
    path = project.write("mine.py", text)
    config = project.resolve_config(
        extensions=[str(path)], flows={"mef": {}, "p": {"kind": "plain", "training": {"epochs": 3}}}
    )
    assert config.flows["p"].model_dump() == {"kind": "plain", "training": {"epochs": 3}}
    assert config.resolve_training("digits", "p").epochs == 3
    assert FLOWS.extract_settings(config.flows["p"]).model_dump() == {}
