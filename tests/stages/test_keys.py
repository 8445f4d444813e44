"""Keys: whatever product is put in another's place is noticed, down the chain, without Snakemake's records.

The stages are replaced by stubs, whose outputs depend on their settings and inputs alone.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from nfpi.config.resolution import resolve
from nfpi.results.recorded.calls import StoredSettings, write_settings
from nfpi.results.recorded.runs import find_runs
from nfpi.runs import TABLES_FOLDER
from nfpi.runtime.chains import Chain
from nfpi.runtime.manifests import Input, compute_digest, read_manifest, write_manifest
from nfpi.stages.evaluate import Evaluate
from nfpi.stages.jobs import MANIFEST, Job, Need, Planned
from nfpi.stages.keys import PLACED, Keys, SettingsKeys
from nfpi.stages.tables_and_figures import MakeTable

ROOT = Path(__file__).parents[2]
ROWS = [
    {"dataset": "digits", "flow": flow, "lambdas": [0, 1e3, 1e4], **refit}
    for flow in ("mef", "glow")
    for refit in ({}, {"refit": "moments"})
]
SETTINGS = {"preset": "demo", "seeds": [0, 1], "tables": {"table2": {"experiments": ROWS}}, "figures": {}, "claims": {}}
OLDER: dict[str, dict[str, Any]] = {
    "prior": {"priors": {"fpi": {"max_iterations": 77}}},
    "training": {"training": {"epochs": 7}},
    "data": {"datasets": {"digits": {"test_per_class": 7}}},
    "generation": {"generation": {"per_class": 7}},
    "classifier": {"classifiers": {"resnet18": {"epochs": 7}}},
    "evaluation": {"evaluation": {"batch_size": 7}},
}
"""Settings of older results, by what they change."""
TABLE = f"{TABLES_FOLDER}/table2.manifest.json"


def plan(root: Path, **changes: Any) -> Planned:
    config = resolve(ROOT / "config.yaml", ROOT / "presets", SETTINGS | changes).config
    return Planned(config, root, ROOT / "workflow/reference/paper.csv")


@dataclass
class Stubs:
    """Makes products as the workflow does, each in a file beside its manifest."""

    planned: Planned
    made: dict[Job, str] = field(default_factory=dict)

    def make(self, job: Job) -> str:
        """Make the product of a job, and all that it needs; return its key."""
        if job in self.made:
            return self.made[job]
        stage = self.planned.plan(job)
        manifest = self.planned.root / job.manifest
        inputs = [
            self.describe(name, need, manifest.parent, stage.many_runs)
            for name, needs in stage.list_needs(self.planned, job.wildcards).items()
            for need in needs
        ]
        keys: dict[str, list[str]] = {}
        for item in dict.fromkeys(inputs):
            keys.setdefault(item.name, []).append(item.key)
        key = self.made[job] = stage.compute_key(keys)
        output = manifest.with_name(f"{manifest.name}.output")
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(compute_digest([key, *(item.content for item in inputs)]))
        timed = []
        if stage.product == "metrics":  # they hold times, and only what brings runs together depends on these
            timed = [output.with_suffix(".timed")]
            timed[0].write_text(f"{self.planned.root} {key}")
        about: dict[str, Any] = {"key": key, "settings": stage.declaration, "inputs": list(dict.fromkeys(inputs))}
        write_manifest(manifest, stage.command, stage.product, [output, *timed], timed=timed, **about)
        return key

    def describe(self, name: str, need: Need | Path | None, folder: Path, with_times: bool) -> Input:
        if not isinstance(need, Need):
            return Input(name=name, key="paper", content="paper")
        key, path = self.make(need.job), self.planned.root / need.job.manifest
        made = read_manifest(path)
        content = compute_digest(made.files) if with_times else made.content
        where = Path(os.path.relpath(path, folder)).as_posix()
        return Input(name=name, product=made.product, path=where, key=key, content=content)


def make_results(root: Path, **changes: Any) -> Path:
    stubs = Stubs(plan(root, **changes))
    write_settings(root, StoredSettings.of("demo", stubs.planned.config))
    stubs.make(Job.of(MakeTable, {"table": "table2"}))
    return root


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_results(tmp_path_factory.mktemp("results") / "demo")


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: make_results(tmp_path_factory.mktemp(name) / "demo", **changes) for name, changes in OLDER.items()}


def list_manifests(root: Path) -> list[Path]:
    return sorted(path.relative_to(root) for path in root.rglob("*.manifest.json"))


def judge(root: Path) -> tuple[str, bool]:
    """Return the fault of the table, and whether a run is shown as outdated."""
    chain = SettingsKeys()
    return chain.find_first_fault(root / TABLE), any(item.outdated for item in find_runs(root, chain))


def put(source: Path, target: Path, with_folder: bool) -> None:
    """Put a product in the place of another, with its date; or the whole folder that it lies in."""
    if with_folder:
        shutil.rmtree(target.parent)
        shutil.copytree(source.parent, target.parent)
    else:
        for file in source.parent.glob(f"{source.name}*"):
            shutil.copy2(file, target.with_name(file.name.replace(source.name, target.name)))


def list_swaps(results: Path, older: Mapping[str, Path]) -> list[tuple[Path, Path]]:
    """Return each product with the place of each other of its kind, and each older one with its own place."""
    names = list_manifests(results)
    swaps = [(results / one, two) for one, two in itertools.permutations(names, 2) if one.name == two.name]
    swaps += [(root / name, name) for root in older.values() for name in list_manifests(root)]
    return [(source, name) for source, name in swaps if read_key(source) != read_key(results / name)]


def read_key(manifest: Path) -> str:
    return read_manifest(manifest).key


def test_untouched_results_have_no_fault(results, older):
    for root in (results, *older.values()):
        assert judge(root) == ("", False)
        assert len(list_manifests(root)) == 1 + 4 + 8 + 12 + 12 + 24 + 24 + 24 + 24 + 1


@pytest.mark.parametrize("share", [71, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("with_folder", [False, True])
def test_no_product_passes_for_another(results, older, tmp_path, with_folder, share):
    place, swaps = tmp_path / "demo", list_swaps(results, older)[::share]
    shutil.copytree(results, place)
    for source, name in swaps:
        put(source, place / name, with_folder)
        assert judge(place)[0], (source, name)
        put(results / name, place / name, with_folder)
    assert judge(place) == ("", False)
    assert len(swaps) > 20


def test_swapped_runs_are_known_by_their_settings_alone(results, tmp_path, monkeypatch):
    place = tmp_path / "demo"
    shutil.copytree(results, place)
    runs = [place / f"digits/mef/fpi/lambda={weight}/seed=0" for weight in (1000, 10000)]
    for source, target in zip(reversed(runs), runs, strict=True):
        put(results / source.relative_to(place) / "metrics.manifest.json", target / "metrics.manifest.json", True)
    for run in runs:
        assert not Chain().find_first_fault(run / "metrics.manifest.json"), "each run is consistent in itself"
        assert "present settings" in SettingsKeys().find_first_fault(run / "metrics.manifest.json")


def test_a_manifest_without_one_of_its_inputs_is_named(results, tmp_path):
    place, lost = tmp_path / "demo", 0
    shutil.copytree(results, place)
    for manifest in list_manifests(place):
        text = (place / manifest).read_text()
        record = json.loads(text)
        for item in record["inputs"]:
            rest = [other for other in record["inputs"] if other != item]
            forged = {**record, "inputs": rest}
            del forged["sha256"]
            (place / manifest).write_text(json.dumps({**forged, "sha256": compute_digest(forged)}))
            assert judge(place)[0], (manifest, item)
            lost += 1
        (place / manifest).write_text(text)
    assert judge(place) == ("", False)
    assert lost > 300


def test_a_part_that_was_copied_alone_has_no_fault(results, tmp_path):
    shutil.copytree(results / TABLES_FOLDER, tmp_path / "demo" / TABLES_FOLDER)
    shutil.copy(results / "settings.json", tmp_path / "demo")
    assert SettingsKeys().find_first_fault(tmp_path / "demo" / TABLE) == ""


def test_same_key_but_other_bytes_are_noticed(results, tmp_path):
    place = tmp_path / "demo"
    shutil.copytree(results, place)
    model = place / "digits/mef/fpi/lambda=1000/seed=0/model.manifest.json"
    before = read_manifest(model)
    output = model.with_name(f"{model.name}.output")
    output.write_text("as on a GPU")
    about: dict[str, Any] = {"key": before.key, "settings": before.settings, "inputs": before.inputs}
    write_manifest(model, before.stage, before.product, [output], **about)
    assert "made from the model of" in judge(place)[0]


def test_a_table_that_left_the_settings_is_compared_with_its_inputs_only(results, tmp_path):
    place = tmp_path / "demo"
    shutil.copytree(results, place)
    config = plan(place).config.model_copy(update={"tables": {}, "figures": {}, "claims": {}})
    write_settings(place, StoredSettings.of("demo", config))
    assert judge(place)[0] == ""


def test_the_product_of_another_stage_does_not_pass_for_a_table(results, tmp_path):
    place = tmp_path / "demo"
    shutil.copytree(results, place)
    put(results / "digits/mef/fpi/lambda=1000/seed=0/metrics.manifest.json", place / TABLE, with_folder=False)
    assert "present settings" in SettingsKeys().find_fault(place / TABLE)


def test_each_stage_that_rules_execute_has_a_place():
    rules = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    assert set(re.findall(r"planning\.params\((\w+)", rules)) == {stage.__name__ for stage in PLACED}
    assert all(stage.places and MANIFEST in stage.outputs for stage in PLACED)


# ---- the key of a run says what it is ------------------------------------------------------------------------------

PRIOR = """
from helper_of_mine import SCALE
from nfpi.config import LocalPath, Settings
from nfpi.priors import register_prior

class Mine(Settings):
    file: LocalPath | None = None

@register_prior("mine", Mine)
def fit_mine(statistics, initial, weight, settings):
    return initial
"""
RUN = {"dataset": "digits", "flow": "mef", "prior": "fpi", "weight": "1000", "seed": "0"}
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "as it is": ({}, {}),
    "prior": ({}, {"prior": "mine"}),
    "settings of the prior": ({"priors": {"fpi": {"max_iterations": 77}}}, {}),
    "λ": ({}, {"weight": "2000"}),
    "seed": ({}, {"seed": "1"}),
    "epochs": ({"training": {"epochs": 7}}, {}),
    "data": ({"datasets": {"digits": {"test_per_class": 7}}}, {}),
    "flow": ({}, {"flow": "glow"}),
    "code of the extension": ({"code": PRIOR + "\n# other\n"}, {"prior": "mine"}),
    "code of its helper": ({"helper": "SCALE = 2\n"}, {"prior": "mine"}),
}


def test_every_pair_of_runs_that_differ_in_one_thing_differs_in_the_key(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    extension, helper = tmp_path / "mine.py", tmp_path / "helper_of_mine.py"
    keys: dict[str, str | None] = {}
    for name, (changes, run) in VARIANTS.items():
        settings = {key: value for key, value in changes.items() if key not in ("code", "helper")}
        extension.write_text(changes.get("code", PRIOR))
        helper.write_text(changes.get("helper", "SCALE = 1\n"))
        priors = {"mine": {"method": "mine"}} | settings.pop("priors", {})
        planned = plan(tmp_path, extensions=[str(extension)], priors=priors, **settings)
        keys[name] = Keys(planned, lambda path: None, tmp_path).of(Job.of(Evaluate, RUN | run))
    assert None not in keys.values()
    assert len(set(keys.values())) == len(VARIANTS), keys


def test_a_file_that_a_setting_of_an_extension_names_counts_by_its_content(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "mine.py").write_text(PRIOR)
    (tmp_path / "helper_of_mine.py").write_text("SCALE = 1\n")
    keys = []
    for folder, content in (("a", "1"), ("b", "1"), ("a", "2")):
        file = tmp_path / folder / "means.npy"
        file.parent.mkdir(exist_ok=True)
        file.write_text(content)
        priors = {"mine": {"method": "mine", "file": str(file)}}
        planned = plan(tmp_path, extensions=[str(tmp_path / "mine.py")], priors=priors)
        keys.append(Keys(planned, lambda path: None, tmp_path).of(Job.of(Evaluate, RUN | {"prior": "mine"})))
    assert keys[0] == keys[1] != keys[2]


def test_an_error_in_what_a_stage_needs_is_no_missing_setting(results, monkeypatch):
    monkeypatch.setattr(Evaluate, "list_needs", lambda *arguments: {}["nothing"])
    with pytest.raises(KeyError):
        SettingsKeys().find_first_fault(results / TABLE)


def test_a_key_is_the_same_on_every_machine_and_has_no_times(results, tmp_path):
    job = Job.of(MakeTable, {"table": "table2"})
    here, there = (Keys(plan(root), lambda path: None, tmp_path).of(job) for root in (results, tmp_path / "elsewhere"))
    assert here == there
    for file in results.rglob("*"):
        os.utime(file)
    assert judge(results) == ("", False)
