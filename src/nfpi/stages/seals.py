"""The seals that the products in results/{preset} should have, by the settings of the last call beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from nfpi.config.base import ConfigError
from nfpi.results.recorded.settings import FILE, read_settings
from nfpi.runs import (
    AUGMENTED,
    BASELINE,
    CANDIDATE,
    COLLECTED_FOLDER,
    FIGURES_FOLDER,
    FIT,
    FLOW_RUN,
    GENERATED,
    GENERATED_CLASSIFIER,
    INITIAL,
    OWN,
    REAL_CLASSIFIER,
    SPLITS,
    TABLES_FOLDER,
    TRAINED_CLASSIFIER,
    compile_template,
)
from nfpi.runtime.formats import FormatError
from nfpi.runtime.manifests import Manifest
from nfpi.runtime.seals import Seals
from nfpi.stages.base import MANIFEST, Stage
from nfpi.stages.claims import JudgeClaims
from nfpi.stages.evaluate import Evaluate
from nfpi.stages.fit_prior import FitPrior
from nfpi.stages.generate import Augment, Generate
from nfpi.stages.import_model import ImportModel
from nfpi.stages.measure_samples import MeasureSamples
from nfpi.stages.planned import Planned
from nfpi.stages.prepare_data import EncodeData, PrepareData
from nfpi.stages.refit_prior import RefitPrior
from nfpi.stages.tables_and_figures import Collect, MakeFigure, MakeTable
from nfpi.stages.test_classifier import TestClassifier
from nfpi.stages.train_classifier import TrainClassifier
from nfpi.stages.train_flow import StartFlow, TrainFlow

_MODEL = ("data", "model")
PLACES: tuple[tuple[type[Stage], str, tuple[str, ...]], ...] = (
    (PrepareData, SPLITS, ()),
    (EncodeData, SPLITS, ()),
    (StartFlow, INITIAL, ("data",)),
    (FitPrior, FIT, ("initial state",)),
    (TrainFlow, FLOW_RUN, ("data", "initial state")),
    (ImportModel, FLOW_RUN, ("data",)),
    (RefitPrior, FLOW_RUN, _MODEL),
    (Evaluate, FLOW_RUN, _MODEL),
    (Generate, GENERATED, ("model",)),
    (Augment, AUGMENTED, _MODEL),
    (TrainClassifier, CANDIDATE, ("data", "generated images")),
    (TrainClassifier, TRAINED_CLASSIFIER, ("data",)),
    (TestClassifier, GENERATED_CLASSIFIER, ("data", "classifier")),
    (TestClassifier, REAL_CLASSIFIER, ("data", "classifier")),
    (MeasureSamples, REAL_CLASSIFIER, ("data", "generated images", "metrics", "classifier")),
    (Collect, COLLECTED_FOLDER, ()),
    (MakeTable, TABLES_FOLDER, ("collected metrics",)),
    (MakeFigure, FIGURES_FOLDER, ()),
    (JudgeClaims, "", ()),
)
"""The stages whose outputs are products, the template of their folder below results/{preset}, and the kinds of product
that they are always made from."""


class SettingsSeals(Seals):
    """Seals that compare products with the settings in settings.json, in the nearest folder above them that has one.

    Products elsewhere, and those that these settings do not plan, are compared with their inputs only.

    Attributes:
        unknown: why the settings in a folder cannot be read, in one line, by folder.
    """

    def __init__(self) -> None:
        super().__init__(self._find_declared)
        self.unknown: dict[Path, str] = {}
        self._planned: dict[Path, tuple[Path, Planned] | None] = {}

    def find_fault(self, path: Path, seal: str | None = None) -> str:
        """Describe why the outputs of a manifest should be made again, also if it does not list all of its inputs."""
        fault, manifest, found = super().find_fault(path, seal), self.read(path), self._find_planned(path.parent)
        if fault or manifest is None or found is None:
            return fault
        listed = [self.read(path.parent / name) for name in manifest.inputs]
        kinds = Counter(made.product.removeprefix("refitted ") for made in listed if made is not None)
        for stage, wildcards, needed in self._list_jobs(path, found[0]):
            if stage.command == manifest.stage and _plan_seal(stage, wildcards, found[1]) is not None:
                expected = Counter([*needed, *_list_needed(stage, wildcards, found[1])])
                missing = expected - kinds
                if missing.total() > listed.count(None):  # those that are not there may be of any kind
                    kind = next(iter(missing))
                    wanted = f"{expected[kind]} {kind} among the inputs of {manifest.product}"
                    return f"{path}: expected {wanted}, received {kinds[kind]}"
        return ""

    def _find_declared(self, path: Path, manifest: Manifest) -> str | None:
        found = self._find_planned(path.parent)
        if found is None:
            return None
        root, planned = found
        jobs = list(self._list_jobs(path, root))
        of_stage = [(stage, wildcards) for stage, wildcards, _ in jobs if stage.command == manifest.stage]
        if jobs and not of_stage:
            return f"of {jobs[0][0].command}"  # no seal: the product of another stage is in its place
        return next(filter(None, (_plan_seal(stage, wildcards, planned) for stage, wildcards in of_stage)), None)

    @staticmethod
    def _list_jobs(path: Path, root: Path) -> Iterator[tuple[type[Stage], dict[str, str], tuple[str, ...]]]:
        """Yield each stage that writes a manifest at a path, with the wildcards of the job and the kinds it reads."""
        place = path.absolute().relative_to(root).as_posix()
        for stage, template, kinds in PLACES:
            name = stage.outputs[MANIFEST].replace("{name}", f"{{{stage.blocks.get('name', 'name')}}}")
            found = compile_template(f"{template}/{name}".removeprefix("/")).fullmatch(place)
            if found is not None:
                yield stage, found.groupdict(), kinds

    def _find_planned(self, folder: Path) -> tuple[Path, Planned] | None:
        """Return the folder of the settings that a folder's products are made with, and these settings."""
        folder = folder.absolute()
        if folder not in self._planned:
            if (folder / FILE).is_file():
                self._planned[folder] = self._read_planned(folder)
            else:
                self._planned[folder] = None if folder == folder.parent else self._find_planned(folder.parent)
        return self._planned[folder]

    def _read_planned(self, root: Path) -> tuple[Path, Planned] | None:
        try:
            return root, Planned(read_settings(root).config)
        except (FormatError, OSError) as error:
            self.unknown[root] = str(error)
            return None


def _plan_seal(stage: type[Stage], wildcards: dict[str, str], planned: Planned) -> str | None:
    """Return the seal of a job's product; None: these settings do not plan it."""
    try:
        return stage.plan(planned, wildcards).compute_seal()
    except (ConfigError, LookupError, AttributeError, ValueError):  # e.g. a data set that the preset no longer has
        return None


def _list_needed(stage: type[Stage], wildcards: dict[str, str], planned: Planned) -> list[str]:
    """Return the kinds of product that a job reads because of its settings: fitted Gaussians, metrics of all runs."""
    if stage is Collect:
        options = Collect.select_options(planned, wildcards)
        return ["metrics"] * len(options["runs"]) * len(options["seeds"])
    prior = wildcards.get("prior", OWN)
    is_fitted = stage is TrainFlow and prior not in (OWN, *BASELINE.values()) and not planned.config.is_learned(prior)
    return ["prior"] if is_fitted else []
