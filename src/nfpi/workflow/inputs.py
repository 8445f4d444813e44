"""Inputs of rules that depend on settings, as functions of the wildcards."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from nfpi.config.base import Augmentation, ConfigError
from nfpi.config.classifiers import CLASSIFIERS, ClassifierConfig
from nfpi.config.flows import TrainedSettings
from nfpi.results.claims.rows import list_claimed_runs, list_runs_compared_by_image
from nfpi.results.tables.rows import list_runs_to_compare, list_table_rows
from nfpi.runs import (
    AUGMENTED,
    BASELINE,
    CANDIDATE,
    FIT,
    GENERATED,
    IMAGE_SET_FILES,
    NO_FLOW,
    OWN,
    REFERENCE_AUGMENTATION,
    REFITS,
    SOURCE,
    SPLITS,
    SPLITS_PATTERN,
    TRAINED_CLASSIFIER,
    VARIANTS,
    WEIGHT_PATTERN,
    Run,
    format_weight,
    get_variants_folder,
    name_refitted,
)
from nfpi.stages.base import MANIFEST
from nfpi.stages.evaluate import Evaluate
from nfpi.stages.fit_prior import FitPrior
from nfpi.stages.generate import Augment, Generate
from nfpi.stages.import_model import list_model_files
from nfpi.stages.planned import Wildcards
from nfpi.stages.prepare_data import PrepareData
from nfpi.stages.train_classifier import TrainClassifier
from nfpi.stages.train_flow import TrainFlow
from nfpi.workflow.plan import Plan


@dataclass(frozen=True)
class Inputs:
    """Input functions and wildcard constraints of the rules; each method is named after what it returns."""

    plan: Plan

    def wildcard_constraints(self) -> dict[str, str]:
        """Return a regular expression for each wildcard."""
        config = self.plan.config
        flow, prior = _make_pattern(config.flows), self.prior_pattern()
        source = SOURCE.format(flow=f"(?:{flow})", prior=f"(?:{prior})", weight=WEIGHT_PATTERN)
        return {
            "dataset": _make_pattern(config.datasets),
            "splits": SPLITS_PATTERN,
            "flow": flow,
            "prior": prior,
            "weight": WEIGHT_PATTERN,
            "start": _make_pattern(BASELINE),
            # with the augmentation of the reference classifier, a folder below a flow has measures of its samples
            "source": f"{NO_FLOW}|{source}(?!.*/augmentation={REFERENCE_AUGMENTATION}/)",
            "classifier": _make_pattern(config.classifiers),
            "augmentation": _make_pattern(get_args(Augmentation)),
            "variants": _make_pattern(VARIANTS.values()),
            "seed": r"0|[1-9][0-9]*",
            "temperature": WEIGHT_PATTERN,
            "table": _make_pattern(config.tables),
        }

    def dataset_pattern(self, *, encoded: bool) -> str:
        """Return a regular expression that matches the data sets encoded by an autoencoder, or the others."""
        names = [name for name, dataset in self.plan.config.datasets.items() if (dataset.vae is not None) == encoded]
        return _make_pattern(names)

    def fitted_prior_pattern(self) -> str:
        """Return a regular expression of the priors that are fitted."""
        return _make_pattern([name for name in self.plan.config.priors if self.plan.config.is_fitted(name)])

    def prior_pattern(self) -> str:
        """Return a regular expression of all priors, as in paths."""
        return f"{OWN}|{self.trained_prior_pattern()}|{self.refitted_prior_pattern()}"

    def trained_prior_pattern(self) -> str:
        """Return a regular expression of the priors, as in paths, under which flows are trained."""
        return _make_pattern([*self.plan.config.priors, *BASELINE.values()])

    def refitted_prior_pattern(self) -> str:
        """Return a regular expression of the priors, as in paths, that are estimated again after a training."""
        names = [OWN, *self.plan.config.priors, *BASELINE.values()]
        return _make_pattern([name_refitted(name, refit) for name in names for refit in REFITS])

    def file_of_training(self, name: str) -> Callable[[Wildcards], str]:
        """Make an input function of a file of the training that a flow's run uses.

        Args:
            name: its name in `TrainFlow.outputs`.
        """

        def find_file(wildcards: Wildcards) -> str:
            return f"{self.plan.layout.of(Run.from_wildcards(wildcards).of_training)}/{TrainFlow.outputs[name]}"

        return find_file

    def if_trained(self, find_file: Callable[[Wildcards], str]) -> Callable[[Wildcards], str | list[str]]:
        """Make an input function of a file of a run's training, which an imported model does not have."""
        return lambda wildcards: [] if Run.from_wildcards(wildcards).is_imported else find_file(wildcards)

    def options_of_training(self, wildcards: Wildcards, input: Any) -> list[str]:
        """Return the options that name log and initial state of a run's training, if it has one.

        Snakemake does not compare them, since the function has the argument `input`.
        """
        if not input.history:
            return []
        return ["--history", input.history, "--initial", input.statistics.rpartition("/")[0]]

    def imported_model(self, wildcards: Wildcards) -> str:
        """Return the folder or file of a trained model, or its id on the hub."""
        model = self._get_model(wildcards)
        return model.model if model.revision is not None else _name_file(Path(model.model))

    def imported_files(self, wildcards: Wildcards) -> list[str]:
        """Return the files of a trained model on this machine; none if it is downloaded.

        Raises:
            ConfigError: the model does not exist.
        """
        model = self._get_model(wildcards)
        files = [] if model.revision is not None else list_model_files(Path(model.model))
        missing = next((file for file in files if not file.exists()), None)
        if missing is not None:
            expected = "expected the folder of a model, or a released checkpoint"
            raise ConfigError(f"flows.{wildcards['flow']}.model: {expected}, received {missing}, which does not exist")
        return list(map(_name_file, files))

    def _get_model(self, wildcards: Wildcards) -> TrainedSettings:
        model = self.plan.config.for_dataset(wildcards["dataset"]).flows[wildcards["flow"]]
        assert isinstance(model, TrainedSettings)
        return model

    def prior_of_training(self, name: str) -> Callable[[Wildcards], str]:
        """Make an input function of the Gaussians that a training begins with, fitted or initial.

        Args:
            name: `prior`, or `manifest` for the manifest of the stage that made them.
        """

        def find_file(wildcards: Wildcards) -> str:
            if self.plan.config.is_fitted(wildcards["prior"]):
                return f"{self.plan.fill_path(FIT, wildcards)}/{FitPrior.outputs[name]}"
            return self.plan.initial_file(name)(wildcards)

        return find_file

    def candidate_folders(self, wildcards: Wildcards) -> list[str]:
        """Return the folders of the candidate classifiers, one for each temperature."""
        return self._fill_temperatures(CANDIDATE, wildcards)

    def generated_folders(self, wildcards: Wildcards) -> list[str]:
        """Return the folders of the generated images, one for each temperature."""
        return self._fill_temperatures(GENERATED, wildcards)

    def generated_files(self, wildcards: Wildcards) -> list[str]:
        """Return the files of the generated images of all temperatures."""
        files = Generate.outputs.values()
        return [f"{folder}/{file}" for folder in self.generated_folders(wildcards) for file in files]

    def _fill_temperatures(self, template: str, wildcards: Wildcards) -> list[str]:
        temperatures = self.plan.config.for_dataset(wildcards["dataset"]).generation.temperatures
        texts = dict.fromkeys(map(format_weight, temperatures))
        return [self.plan.fill_path(template, wildcards, temperature=text) for text in texts]

    def candidate_files(self, name: str) -> Callable[[Wildcards], list[str]]:
        """Make an input function of one file of every candidate; `name` is its name among the stage's outputs."""
        file = TrainClassifier.outputs[name]
        return lambda wildcards: [f"{folder}/{file}" for folder in self.candidate_folders(wildcards)]

    def augmented_images(self, wildcards: Wildcards) -> list[str]:
        """Return the files of the latent-augmented images that a classifier trains on, if any."""
        variants = get_variants_folder(wildcards["augmentation"])
        if variants is None:
            return []
        flow = Run.from_wildcards(wildcards).of_flow
        return list(self.plan.outputs(Augment, AUGMENTED.format(**flow.wildcards, variants=variants)).values())

    def weights_to_fine_tune(self, wildcards: Wildcards) -> list[str]:
        """Return the weights and manifest of the classifier that this one is fine-tuned from, if any."""
        other = self.plan.config.fine_tuned_from(Run.from_wildcards(wildcards))
        if other is None:
            return []
        folder = self.plan.fill_path(TRAINED_CLASSIFIER, other.wildcards)
        return [f"{folder}/{TrainClassifier.outputs[name]}" for name in ("model", MANIFEST)]

    def options_of_real_classifier(self, wildcards: Wildcards) -> list[str]:
        """Return the options that name variants and initial weights of a classifier trained on real images."""
        options = [text for path in self.published_weights(wildcards) for text in ("--classifier.weights", path)]
        for path in self.weights_to_fine_tune(wildcards)[:1]:
            options += ["--start-from", path]
        for path in self.augmented_images(wildcards)[:1]:
            options += ["--augmented", path.rpartition("/")[0]]
        return options

    def published_weights(self, wildcards: Wildcards) -> list[str]:
        """Return the file of a classifier's pretrained weights, if any, given by the user or downloaded."""
        classifier = self._get_classifier(wildcards)
        if classifier.weights is None and classifier.pretrained:
            return [f"{self.plan.downloads}/{classifier.model}.safetensors"]
        return self.given_weights(wildcards)

    def given_weights(self, wildcards: Wildcards) -> list[str]:
        """Return the file of a classifier's pretrained weights if the user gives one."""
        return _name_weights(self._get_classifier(wildcards).weights)

    def inception_weights(self, wildcards: Wildcards) -> list[str]:
        """Return the file of Inception's weights if the user gives one."""
        return _name_weights(self.plan.config.quality.inception)

    def _get_classifier(self, wildcards: Wildcards) -> ClassifierConfig:
        return self.plan.config.for_dataset(wildcards["dataset"]).classifiers[wildcards["classifier"]]

    def published_model_pattern(self) -> str:
        """Return a regular expression of the classifier models with published weights."""
        return _make_pattern([name for name in CLASSIFIERS if "published" in CLASSIFIERS[name].traits])

    def unknown_images(self, wildcards: Wildcards) -> list[str]:
        """Return the test images, and the manifest, of the data set that is to be told from a run's, if any."""
        folder = self._find_unknown(wildcards)
        files = [*(f"test/{file}" for file in IMAGE_SET_FILES.values()), PrepareData.outputs[MANIFEST]]
        return [] if folder is None else [f"{folder}/{file}" for file in files]

    def options_of_unknown(self, wildcards: Wildcards) -> list[str]:
        """Return the option that names the folder of these images' splits."""
        folder = self._find_unknown(wildcards)
        return [] if folder is None else ["--unknown", folder]

    def _find_unknown(self, wildcards: Wildcards) -> str | None:
        name = self.plan.config.for_dataset(wildcards["dataset"]).evaluation.unknown
        if name is None:
            return None
        return self.plan.fill_path(
            SPLITS, dataset=name, splits=self.plan.config.splits_of(name, int(wildcards["seed"]))
        )

    def metrics_of_table(self, wildcards: Wildcards) -> list[str]:
        """Return the metrics and manifests of all runs of a table."""
        rows = list_table_rows(self.plan.config, wildcards["table"])
        return self._files_of_runs((run for row in rows for run in row.runs), "metrics", MANIFEST)

    def predictions_of_table(self, wildcards: Wildcards) -> list[str]:
        """Return the predictions of the runs that a table compares image by image: none if it has several seeds."""
        metrics = self.plan.config.tables[wildcards["table"]].metrics
        runs = list_runs_to_compare(list_table_rows(self.plan.config, wildcards["table"]), metrics)
        return self._files_of_runs(runs, "predictions")

    def metrics_of_claims(self, wildcards: Wildcards) -> list[str]:
        """Return the metrics and manifests of all runs that the claims compare."""
        return self._files_of_runs(list_claimed_runs(self.plan.config), "metrics", MANIFEST)

    def predictions_of_claims(self, wildcards: Wildcards) -> list[str]:
        """Return the predictions of the runs that the claims compare image by image."""
        return self._files_of_runs(list_runs_compared_by_image(self.plan.config), "predictions")

    def _files_of_runs(self, runs: Iterable[Run], *names: str) -> list[str]:
        """Return files of runs, each once; the names are those of outputs that flows and classifiers share."""
        return [f"{self.plan.layout.of(run)}/{Evaluate.outputs[name]}" for run in dict.fromkeys(runs) for name in names]

    def files_of_figure(self, name: str) -> Callable[[Wildcards], dict[str, list[str]]]:
        """Make an input function (to be unpacked) of the files that a figure is drawn from."""
        return lambda wildcards: self.plan.config.figures[name].files(self.plan.config, self.plan.layout)

    def options_of_figure(self, name: str) -> Callable[[Wildcards], list[str]]:
        """Make a params function that returns the option with the files that a figure is drawn from."""
        files = self.files_of_figure(name)
        return lambda wildcards: ["--files", json.dumps(files(wildcards))]


def _name_weights(file: Path | None) -> list[str]:
    return [] if file is None else [_name_file(file)]


def _name_file(file: Path) -> str:
    """Return the path of a file as an input; a name without a folder would be taken for a target."""
    return (file if len(file.parts) > 1 else file.absolute()).as_posix()


def _make_pattern(names: object) -> str:
    """Return a regular expression that matches these names; without names it matches nothing."""
    return "|".join(map(re.escape, names)) or "(?!)"  # type: ignore[call-overload]
