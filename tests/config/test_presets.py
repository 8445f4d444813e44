"""What is laid over what: merging, and presets that extend one another."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfpi.config.base import ConfigError
from nfpi.config.resolution import list_built_in_presets, resolve
from nfpi.config.settings import merge

ROOT = Path(__file__).parents[2]

# ---- merging ------------------------------------------------------------------------------------------------


def test_lists_are_replaced_and_mappings_merged():
    overlay = {"a": {"b": [3], "new": {"x": 1}}, "d": {"e": 1}}
    below = {"a": {"b": [1, 2], "c": 0}, "d": 7}
    assert merge(below, overlay) == {"a": {"b": [3], "c": 0, "new": {"x": 1}}, "d": {"e": 1}}
    assert merge(below, {"a": {"c": 1}}, {"a": {"c": 2}})["a"]["c"] == 2


def test_merging_leaves_its_arguments_alone_and_shares_nothing():
    below, overlay = {"a": {"b": [1]}}, {"c": {"d": [2]}}
    merged = merge(below, overlay)
    merged["a"]["b"].append(9)
    merged["c"]["d"].append(9)
    assert (below, overlay) == ({"a": {"b": [1]}}, {"c": {"d": [2]}})


KEYS = st.sampled_from(["a", "b", "priors", "method"])
TREES = st.recursive(st.integers(), lambda inner: st.dictionaries(KEYS, inner, max_size=3), max_leaves=8)
MAPPINGS = st.dictionaries(KEYS, TREES, max_size=3)


@given(MAPPINGS, MAPPINGS)
def test_an_overlay_is_in_what_it_was_laid_over(below, overlay):
    merged = merge(below, overlay)
    assert merge(merged, overlay) == merged
    assert merge(below, {}) == below
    assert merge({}, overlay) == overlay
    assert merged.keys() == below.keys() | overlay.keys()


DESCENT = {"method": "gradient_descent", "power": 2}


@pytest.mark.parametrize(
    ("block", "overlay", "expected"),
    [
        ({"alpha": 3}, DESCENT, DESCENT),
        (DESCENT, {"method": "fixed_point", "alpha": 3}, {"method": "fixed_point", "alpha": 3}),
        ({"alpha": 3}, {"method": "fixed_point", "tolerance": 1}, None),
        (DESCENT, {"alpha": 3}, None),
    ],
)
def test_another_method_replaces_the_block(block, overlay, expected):
    """None: the overlay is added to the block."""
    merged = merge({"priors": {"p": block}}, {"priors": {"p": overlay}})
    assert merged == {"priors": {"p": expected or block | overlay}}


def test_another_kind_of_flow_replaces_the_block():
    below, same, other = {"num_blocks": [1]}, {"num_flows": [2]}, {"kind": "glow", "num_flows": [2]}
    assert merge({"flows": {"mef": below}}, {"flows": {"mef": same}}) == {"flows": {"mef": below | same}}
    assert merge({"flows": {"mef": below}}, {"flows": {"mef": other}}) == {"flows": {"mef": other}}


def test_only_named_blocks_are_replaced():
    assert merge({"flows": {"kind": 1, "x": 2}}, {"flows": {"kind": 3}}) == {"flows": {"kind": 3, "x": 2}}
    merged = merge({"a": {"b": {"method": 1, "x": 2}}}, {"a": {"b": {"method": 3}}})
    assert merged == {"a": {"b": {"method": 3, "x": 2}}}


# ---- presets ------------------------------------------------------------------------------------------------


def test_a_preset_may_be_a_file_of_ones_own(project):
    path = project.write("mine/sweep.yaml", {"seeds": [7]})
    resolved = project.resolve({"preset": str(path)})
    assert (resolved.preset, resolved.config.seeds) == ("sweep", [7])
    assert resolved.config.training.epochs == 100


def test_a_file_is_found_from_where_the_call_is_made(project, monkeypatch):
    project.write("sweep.yaml", {"seeds": [7]})
    monkeypatch.chdir(project.folder)
    for text in ("sweep.yaml", "./sweep.yaml"):
        assert project.resolve({"preset": text}).preset == "sweep"


def test_a_preset_may_extend_one_of_the_project_or_a_file_beside_it(project):
    project.write("mine/first.yaml", {"extends": "small", "training": {"batch_size": 7}, "seeds": [1]})
    path = project.write("mine/second.yaml", {"extends": "first.yaml", "seeds": [2]})
    resolved = project.resolve({"preset": str(path)})
    assert resolved.preset == "second"
    assert resolved.config.seeds == [2]
    assert (resolved.config.training.epochs, resolved.config.training.batch_size) == (10, 7)
    assert list(resolved.config.tables) == ["table2"]
    assert project.resolve_config({"preset": str(path), "seeds": [3]}).seeds == [3]


def test_paths_in_a_file_of_ones_own_are_relative_to_it(project, monkeypatch):
    monkeypatch.setenv("NFPI_TEST_SCRATCH", "/scratch")
    project.write("mine/extensions/empty.py", "")
    content = {
        "extensions": ["extensions/empty.py"],
        "datasets": {
            "digits": {"vae": "vae", "folder": "/data"},
            "other": {"folder": "$NFPI_TEST_SCRATCH/x", "overrides": {"classifiers": {"swin": {"weights": "w.bin"}}}},
        },
        "classifiers": {"swin": {"weights": "../swin.bin"}},
    }
    path = project.write("mine/sweep.yaml", content)
    config = project.resolve_config({"preset": str(path)})
    mine = path.parent
    assert config.extensions == [mine / "extensions/empty.py"]
    assert config.datasets["digits"].vae == mine / "vae"
    assert config.datasets["digits"].folder == Path("/data")
    assert config.datasets["other"].folder == Path("/scratch/x")
    assert config.classifiers["swin"].weights == mine / "../swin.bin"
    assert config.for_dataset("other").classifiers["swin"].weights == mine / "w.bin"


PATHS = """
from nfpi.config.base import LocalPath, Settings
from nfpi.config.priors import PRIORS

class S(Settings):
    weights: str = ""
    means: LocalPath | None = None

PRIORS.register("s", S, uses_weight=False, learned=False)
"""


def test_a_text_is_a_path_where_its_setting_is_one(project):
    project.write("mine/s.py", PATHS)
    content = {
        "extensions": ["s.py"],
        "priors": {"p": {"method": "s", "weights": "uniform", "means": "means.npy", "start": "identity"}},
        "datasets": {"folder": {"folder": "images"}, "weights": {"vae": "$HOME/vae"}},
    }
    config = project.resolve_config({"preset": str(project.write("mine/sweep.yaml", content))})
    mine = project.folder.resolve() / "mine"
    prior = config.priors["p"]
    assert (prior.weights, prior.means, prior.start) == ("uniform", mine / "means.npy", "identity")
    assert config.datasets["folder"].folder == mine / "images"
    assert config.datasets["weights"].vae == Path.home() / "vae"
    assert type(prior.weights) is str


def test_numbers_and_choices_may_be_texts_in_a_file_of_ones_own(project):
    content = {
        "training": {"learning_rate": "1e-3", "epochs": "7"},
        "priors": {"fpi": {"update": "exact", "tolerance": "1e-4"}},
        "flows": {"mef": {"kind": "glow", "training": {"learning_rate": "1e-3"}}},
    }
    config = project.resolve_config({"preset": str(project.write("mine/sweep.yaml", content))})
    assert (config.training.learning_rate, config.training.epochs) == (1e-3, 7)
    assert (config.priors["fpi"].update, config.priors["fpi"].tolerance) == ("exact", 1e-4)
    assert config.resolve_training("digits", "mef").learning_rate == 1e-3


def test_paths_of_the_project_and_of_the_user_are_relative_to_where_the_call_is_made(project):
    vae = {"datasets": {"digits": {"vae": "models/vae"}}}
    assert project.resolve_config(presets={"small": vae}).datasets["digits"].vae == Path("models/vae")
    assert project.resolve_config(vae).datasets["digits"].vae == Path("models/vae")


FAULTS = [
    ("smal", None, "preset: unknown preset 'smal' (did you mean 'small'?)"),
    ("mine/none.yaml", None, "none.yaml"),
    ("mine/small.yaml", {}, "rename the file"),  # there is one of the project
    ("mine/a.yaml", {"extends": "papr"}, "a.yaml: extends: unknown preset 'papr'"),
    ("mine/a.yaml", {"extends": "a.yaml"}, "a.yaml: extends itself"),
    ("mine/a.yaml", {"extends": "b.yaml"}, "a.yaml: extends itself"),
    ("mine/a.yaml", "a: [", "a.yaml: expected YAML"),
    ("mine/a.yaml", "a: 2024-02-30", "a.yaml: expected YAML"),
    ("mine/a.yaml", "tables: {a: null}\nseeds: [1]\ntables: {b: null}\n", "'tables' again"),
    ("mine/a.yaml", "- 1", "a.yaml: "),
    ("mine/a.yaml", {"results": "x"}, "a.yaml: "),
    ("mine/a.yaml", {"flows": {"mef": {"num_flow": [1]}}}, "unknown key 'flows.mef.num_flow'"),
    ("mine/a b.yaml", {}, "a b.yaml"),
]


@pytest.mark.parametrize(("preset", "content", "message"), FAULTS)
def test_a_fault_of_a_preset_is_one_line(project, monkeypatch, preset, content, message):
    monkeypatch.chdir(project.folder)
    project.write("mine/b.yaml", {"extends": "./a.yaml"})
    if content is not None:
        project.write(preset, content)
    with pytest.raises(ConfigError) as error:
        project.resolve({"preset": preset})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_key_may_override_one_of_an_included_mapping(project):
    text = "priors: {a: &a {alpha: 2, start: identity}, b: &b {<<: *a, alpha: 3}, c: {<<: *b, alpha: 4}}"
    path = project.write("mine/merged.yaml", text)
    priors = project.resolve_config({"preset": str(path)}).priors
    assert [(priors[name].alpha, priors[name].start) for name in "abc"] == [(value, "identity") for value in (2, 3, 4)]


def test_an_empty_file_is_a_preset_that_changes_nothing(project):
    path = project.write("mine/empty.yaml", "")
    assert project.resolve({"preset": str(path)}).config.training.epochs == 100


@pytest.mark.parametrize("preset", list_built_in_presets(ROOT / "presets"))
def test_the_presets_of_the_project_are_settings(preset):
    resolved = resolve(ROOT / "config.yaml", ROOT / "presets", {"preset": preset})
    assert resolved.preset == preset
    assert resolved.config.tables
    again = resolve(ROOT / "config.yaml", ROOT / "presets", {"preset": f"{ROOT}/presets/{preset}.yaml"})
    assert again == resolved


def test_resolving_changes_nothing_that_it_is_given(project):
    overrides = {"priors": {"fpi": {"method": "gradient_descent"}}, "seeds": [1]}
    before = copy.deepcopy(overrides)
    project.resolve(overrides)
    assert overrides == before
