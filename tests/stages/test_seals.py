"""Seals: whatever product is put in another's place is noticed, down the chain, without Snakemake's records.

The stages are replaced by stubs, whose outputs depend on their settings and inputs alone.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nfpi.config.resolution import resolve
from nfpi.config.settings import Config
from nfpi.results.recorded.runs import find_runs
from nfpi.results.recorded.settings import StoredSettings, write_settings
from nfpi.runs import (
    CANDIDATE,
    COLLECTED_FOLDER,
    FIT,
    FLOW_RUN,
    GENERATED,
    GENERATED_CLASSIFIER,
    INITIAL,
    SPLITS,
    TABLES_FOLDER,
)
from nfpi.runtime.manifests import compute_digest, read_manifest, trace_inputs, write_manifest
from nfpi.runtime.seals import Seals
from nfpi.stages.base import MANIFEST, Stage
from nfpi.stages.evaluate import Evaluate
from nfpi.stages.fit_prior import FitPrior
from nfpi.stages.generate import Generate
from nfpi.stages.planned import Planned
from nfpi.stages.prepare_data import PrepareData
from nfpi.stages.refit_prior import RefitPrior
from nfpi.stages.seals import PLACES, SettingsSeals
from nfpi.stages.tables_and_figures import Collect, MakeTable
from nfpi.stages.test_classifier import TestClassifier
from nfpi.stages.train_classifier import TrainClassifier
from nfpi.stages.train_flow import StartFlow, TrainFlow

ROOT = Path(__file__).parents[2]
ROWS = [
    {"dataset": "digits", "flow": flow, "lambdas": [0, 1e3, 1e4], **refit}
    for flow in ("mef", "glow")
    for refit in ({}, {"refit": "moments"})
]
SETTINGS = {"preset": "demo", "seeds": [0, 1], "tables": {"table2": {"experiments": ROWS}}}
OLDER = {
    "prior": {"priors": {"fpi": {"max_iterations": 77}}},
    "training": {"training": {"epochs": 7}},
    "data": {"datasets": {"digits": {"test_per_class": 7}}},
    "generation": {"generation": {"per_class": 7}},
    "classifier": {"classifiers": {"resnet18": {"epochs": 7}}},
    "evaluation": {"evaluation": {"batch_size": 7}},
}
"""Settings of older results, by what they change."""


def make_config(**changes: Any) -> Config:
    return resolve(ROOT / "config.yaml", ROOT / "presets", SETTINGS | changes).config


@dataclass(frozen=True)
class Stubs:
    """Makes products as the workflow does, each in a file beside its manifest."""

    root: Path
    planned: Planned

    def make(self, stage: type[Stage], template: str, wildcards: dict[str, str], *inputs: Path) -> Path:
        """Make a product, and return the path of its manifest."""
        name = stage.outputs[MANIFEST].format(name=wildcards.get("table"))
        manifest = self.root / template.format(**wildcards) / name
        known = {key: value for key, value in wildcards.items() if f"{{{key}}}" in template or key == "table"}
        job = stage.plan(self.planned, known)
        seal = job.compute_seal()
        output = manifest.with_name(f"{name}.output")
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(compute_digest([seal, *(read_manifest(path).content for path in inputs)]))
        files = [path.with_name(f"{path.name}.output") for path in inputs]
        origin = trace_inputs(files, common=stage.common)
        timed = []
        if stage.product == "metrics":  # they hold times, and only what brings runs together depends on these
            timed = [output.with_suffix(".timed")]
            timed[0].write_text(f"{self.root} {seal}")
        about = {"timed": timed, "digests": {}, "seal": seal, "settings": job.declaration, **vars(origin)}
        write_manifest(manifest, stage.command, stage.product, [output, *timed], **about)
        return manifest

    def make_run(self, data: Path, initial: Path, wildcards: dict[str, str]) -> Iterator[Path]:
        """Make a flow's run and that of its classifier, and yield the manifests of their metrics."""
        prior = self.make(FitPrior, FIT, wildcards, initial) if wildcards["prior"] == "fpi" else initial
        trained = self.make(TrainFlow, FLOW_RUN, wildcards, data, initial, prior)
        refitted = wildcards | {"prior": f"{wildcards['prior']}+moments"}
        for run, model in ((wildcards, trained), (refitted, self.make(RefitPrior, FLOW_RUN, refitted, data, trained))):
            yield self.make(Evaluate, FLOW_RUN, run, data, model, initial)
            generated = self.make(Generate, GENERATED, run, model)
            classifier = self.make(TrainClassifier, CANDIDATE, run, data, generated)
            yield self.make(TestClassifier, GENERATED_CLASSIFIER, run, data, classifier)

    def make_all(self) -> None:
        """Make the results of all runs, and a table."""
        write_settings(self.root, StoredSettings.of("demo", self.planned.config))
        data = self.make(PrepareData, SPLITS, {"dataset": "digits", "splits": "splits"})
        metrics = []
        for flow, seed in itertools.product(("mef", "glow"), "01"):
            common = {"dataset": "digits", "flow": flow, "seed": seed, "start": "data"}
            initial = self.make(StartFlow, INITIAL, common, data)
            for prior, weight in (("baseline", "0"), ("fpi", "1000"), ("fpi", "10000")):
                run = common | {"prior": prior, "weight": weight, "temperature": "1", "classifier": "resnet18"}
                metrics += self.make_run(data, initial, run)
        collected = self.make(Collect, COLLECTED_FOLDER, {"table": "table2"}, *metrics)
        self.make(MakeTable, TABLES_FOLDER, {"table": "table2"}, collected)


def make_results(root: Path, **changes: Any) -> Path:
    Stubs(root, Planned(make_config(**changes))).make_all()
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
    seals = SettingsSeals()
    return seals.find_first_fault(root / TABLES_FOLDER / "table2.manifest.json"), any(
        item.is_outdated for item in find_runs(root, seals)
    )


def put(source: Path, target: Path, with_folder: bool) -> None:
    """Put a product in the place of another, with its date; or the whole folder that it lies in."""
    if with_folder:
        shutil.rmtree(target.parent)
        shutil.copytree(source.parent, target.parent)
    else:
        for suffix in ("", ".output"):
            shutil.copy2(f"{source}{suffix}", f"{target}{suffix}")


def list_swaps(results: Path, older: dict[str, Path]) -> list[tuple[Path, Path]]:
    """Return each product with the place of each other of its kind, and each older one with its own place."""
    names = list_manifests(results)
    swaps = [(results / one, two) for one, two in itertools.permutations(names, 2) if one.name == two.name]
    swaps += [(root / name, name) for root in older.values() for name in list_manifests(root)]
    return [(source, name) for source, name in swaps if compute_content(source) != compute_content(results / name)]


def compute_content(manifest: Path) -> str:
    return read_manifest(manifest).content


def test_untouched_results_have_no_fault(results, older):
    for root in (results, *older.values()):
        assert judge(root) == ("", False)


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
        assert not Seals().find_first_fault(run / "metrics.manifest.json"), "each run is consistent in itself"
        assert "present settings" in SettingsSeals().find_first_fault(run / "metrics.manifest.json")
    monkeypatch.setattr(Seals, "find_fault", lambda *arguments: "")
    assert judge(place) == ("", False), "without the seals, nothing tells"


def test_a_manifest_without_one_of_its_inputs_is_named(results, tmp_path):
    place, lost = tmp_path / "demo", []
    shutil.copytree(results, place)
    for manifest in list_manifests(place):
        text = (place / manifest).read_text()
        record = json.loads(text)
        for name in record["inputs"]:
            rest = {path: content for path, content in record["inputs"].items() if path != name}
            forged = {**record, "inputs": rest}
            del forged["sha256"]
            (place / manifest).write_text(json.dumps({**forged, "sha256": compute_digest(forged)}))
            if record["stage"] != "evaluate" or "initial" not in name:  # the model was made from it, too
                assert "among the inputs of" in judge(place)[0], (manifest, name)
                lost.append(name)
        (place / manifest).write_text(text)
    assert judge(place) == ("", False)
    assert len(lost) > 100


def test_an_input_less_is_noticed_though_another_one_is_not_there(results, tmp_path):
    place = tmp_path / "demo"
    shutil.copytree(results, place)
    collected = place / COLLECTED_FOLDER / "table2.manifest.json"
    first, second, *_ = read_manifest(collected).inputs
    (collected.parent / first).unlink()
    assert judge(place)[0] == "", "as in a copy of a part"
    record = json.loads(collected.read_text())
    del record["inputs"][second], record["sha256"]
    collected.write_text(json.dumps({**record, "sha256": compute_digest(record)}))
    assert "expected 48 metrics among the inputs" in judge(place)[0]


def test_a_table_that_left_the_settings_is_compared_with_its_inputs_only(results, tmp_path):
    place = tmp_path / "demo"
    shutil.copytree(results, place)
    write_settings(
        place, StoredSettings.of("demo", make_config().model_copy(update={"tables": {}, "figures": {}, "claims": {}}))
    )
    assert judge(place)[0] == ""


def test_the_places_are_those_of_the_rules():
    """Each stage with a product that a rule makes has its place here."""
    rules = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    named = {stage.__name__ for stage, *_ in PLACES}
    assert set(re.findall(r"declarations\.of\((\w+)", rules)) - named == {"DownloadWeights"}


class Reads(Stage):
    """A stage with a setting that names a file, as an extension may have."""

    command = "reads"

    table: str


def test_a_seal_is_the_same_on_every_machine_but_no_training_resumes_on_another_file(tmp_path):
    here, there, other = (
        Reads(output=tmp_path, table=table) for table in ("/here/a.csv", "/there/a.csv", "/here/b.csv")
    )
    assert here.compute_seal() == there.compute_seal() != other.compute_seal()
    assert here.compute_fingerprint() != there.compute_fingerprint()


def test_the_product_of_another_stage_does_not_pass_for_a_table(results, tmp_path):
    place = tmp_path / "demo"
    shutil.copytree(results, place)
    table = f"{TABLES_FOLDER}/table2.manifest.json"
    put(results / COLLECTED_FOLDER / "table2.manifest.json", place / table, with_folder=False)
    assert "present settings" in SettingsSeals().find_fault(place / table)
