"""The seals that the products in results/{preset} should have, by the settings of the last call beside them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nfpi.config.base import ConfigError
from nfpi.results.recorded.settings import FILE, read_settings
from nfpi.runs import (
    AUGMENTED,
    CANDIDATE,
    COLLECTED_FOLDER,
    FIGURES_FOLDER,
    FIT,
    FLOW_RUN,
    GENERATED,
    GENERATED_CLASSIFIER,
    INITIAL,
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

PLACES: tuple[tuple[type[Stage], str], ...] = (
    (PrepareData, SPLITS),
    (EncodeData, SPLITS),
    (StartFlow, INITIAL),
    (FitPrior, FIT),
    (TrainFlow, FLOW_RUN),
    (ImportModel, FLOW_RUN),
    (RefitPrior, FLOW_RUN),
    (Evaluate, FLOW_RUN),
    (Generate, GENERATED),
    (Augment, AUGMENTED),
    (TrainClassifier, CANDIDATE),
    (TrainClassifier, TRAINED_CLASSIFIER),
    (TestClassifier, GENERATED_CLASSIFIER),
    (TestClassifier, REAL_CLASSIFIER),
    (MeasureSamples, REAL_CLASSIFIER),
    (Collect, COLLECTED_FOLDER),
    (MakeTable, TABLES_FOLDER),
    (MakeFigure, FIGURES_FOLDER),
    (JudgeClaims, ""),
)
"""The stages whose outputs are products, and the template of their folder below results/{preset}."""


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

    def _find_declared(self, path: Path, manifest: Manifest) -> str | None:
        found = self._find_planned(path.absolute().parent)
        if found is None:
            return None
        root, planned = found
        jobs = list(_list_jobs(path.absolute().relative_to(root).as_posix()))
        of_stage = [(stage, wildcards) for stage, wildcards in jobs if stage.command == manifest.stage]
        if jobs and not of_stage:
            return f"of {jobs[0][0].command}"  # no seal: the product of another stage is in its place
        return next(filter(None, (_plan_seal(stage, wildcards, planned) for stage, wildcards in of_stage)), None)

    def _find_planned(self, folder: Path) -> tuple[Path, Planned] | None:
        """Return the folder of the settings that a folder's products are made with, and these settings."""
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


def _list_jobs(place: str) -> Iterator[tuple[type[Stage], dict[str, str]]]:
    """Yield each stage that writes its manifest to a place below results/{preset}, with the wildcards of the job."""
    for stage, template in PLACES:
        name = stage.outputs[MANIFEST].replace("{name}", f"{{{stage.blocks.get('name', 'name')}}}")
        found = compile_template(f"{template}/{name}".removeprefix("/")).fullmatch(place)
        if found is not None:
            yield stage, found.groupdict()


def _plan_seal(stage: type[Stage], wildcards: dict[str, str], planned: Planned) -> str | None:
    """Return the seal of a job's product; None: these settings do not plan it."""
    try:
        return stage.plan(planned, wildcards).compute_seal()
    except (ConfigError, LookupError, AttributeError, ValueError):  # e.g. a data set that the preset no longer has
        return None
