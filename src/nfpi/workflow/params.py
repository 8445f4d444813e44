"""Params functions, which return the settings that a rule passes to its stage as JSON.

A rule gets only the settings that its stage uses, so that a change of other settings does not rerun it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from nfpi.config import FIGURES, METRICS, ClassifierConfig, TableSettings, hash_extension, list_execution_settings
from nfpi.config.generation import Displacement
from nfpi.config.metrics import GENERATED_PREFIX, VALIDATION_PREFIX, find_registered_name
from nfpi.results.tables.rows import TableRow, list_table_rows
from nfpi.runs import VARIANTS, Run, get_variants_folder, parse_splits_seed
from nfpi.workflow.inputs import Inputs, select_claimed_rows
from nfpi.workflow.plan import Plan, Wildcards, as_dict, as_json

Param = Callable[[Wildcards], str]
UncomparedParam = Callable[[Wildcards, int], str]
"""A params function with the argument `threads`. Snakemake does not compare the value of such a function with that of
the last run, so a change does not rerun the job; the docstrings say "not compared". If some of these settings affect
the result, the rule has another param `compared` with only those."""

_IGNORED_BY_CLAIMS = ("experiments", "title", "best_only", "metrics", "literature")
"""Settings of a table that claims do not depend on; and `experiments`, which :meth:`Params.rows_of_claims` selects."""


@dataclass(frozen=True)
class Params:
    """Params functions of the rules, named after the settings, options or digests that they return."""

    plan: Plan
    inputs: Inputs

    # ---- data ----------------------------------------------------------------------------------------------

    def dataset(self, wildcards: Wildcards, threads: int) -> str:
        """Return the settings of a data set (not compared)."""
        return as_json(self.plan.get_dataset_config(wildcards), without=["overrides"])

    def dataset_content_settings(self, wildcards: Wildcards) -> str:
        """Return the settings that the images depend on, without paths, which differ between users.

        The content of the files is compared separately, see :mod:`nfpi.workflow.sources`.
        """
        ignored = ["overrides", "folder", "vae", "encode_batch_size", "real_labels"]
        return as_json(self.plan.get_dataset_config(wildcards), without=ignored)

    def split_remark(self, wildcards: Wildcards, threads: int) -> str:
        """Return a remark for messages that names the seed of the split (not compared); empty if all seeds share it."""
        seed = parse_splits_seed(wildcards["splits"])
        return "" if seed is None else f", split of seed {seed}"

    def real_label_options(self, wildcards: Wildcards) -> list[str]:
        """Return the option that adds scores on ImageNet-ReaL labels, if the data set has these labels."""
        return ["--real-labels"] if self.plan.config.datasets[wildcards["dataset"]].real_labels else []

    # ---- flows and priors ----------------------------------------------------------------------------------

    def flow(self, wildcards: Wildcards) -> str:
        """Return the settings of the flow for the data set."""
        block = self.plan.config.for_dataset(wildcards["dataset"]).flows[wildcards["flow"]]
        return as_json(block, without=["training"])

    def training(self, wildcards: Wildcards, threads: int) -> str:
        """Return the settings of the training (not compared)."""
        return as_json(self.plan.config.resolve_training(wildcards["dataset"], wildcards["flow"]))

    def initial_state_settings(self, wildcards: Wildcards) -> str:
        """Return the training settings that the initial state depends on."""
        training = self.plan.config.resolve_training(wildcards["dataset"], wildcards["flow"])
        return json.dumps(training.select_initial_state_settings())

    def training_result_settings(self, wildcards: Wildcards) -> str:
        """Return the training settings that the result depends on."""
        return json.dumps(
            self.plan.config.resolve_training(wildcards["dataset"], wildcards["flow"]).select_result_settings()
        )

    def prior(self, wildcards: Wildcards) -> str:
        """Return the settings of a prior."""
        return as_json(self.plan.config.priors[wildcards["prior"]])

    def prior_options(self, wildcards: Wildcards) -> list[str]:
        """Return the options of a training that name its Gaussians: fitted, or learned along with the flow."""
        if self.inputs.is_learned(wildcards["prior"]):
            return ["--learn", self.prior(wildcards), "--weight", wildcards["weight"]]
        if self.inputs.is_fitted(wildcards["prior"]):
            return ["--prior", self.inputs.prior_of_training(wildcards)]
        return []

    # ---- evaluation, sampling and augmentation -------------------------------------------------------------

    def evaluation(self, wildcards: Wildcards) -> str:
        """Return the settings of the evaluation."""
        return as_json(self.plan.config.for_dataset(wildcards["dataset"]).evaluation)

    def images_per_class(self, wildcards: Wildcards) -> int:
        """Return the number of images drawn per class."""
        return self.plan.config.for_dataset(wildcards["dataset"]).generation.per_class

    def generation_batch_size(self, wildcards: Wildcards) -> int:
        """Return the number of images drawn at a time."""
        return self.plan.config.for_dataset(wildcards["dataset"]).generation.batch_size

    def nfa(self, wildcards: Wildcards) -> str:
        """Return the settings of the latent augmentation."""
        return as_json(self.plan.config.for_dataset(wildcards["dataset"]).nfa)

    def displacement(self, wildcards: Wildcards, threads: int) -> str:
        """Return how latents are displaced to make variants (not compared: part of the path)."""
        displacements: dict[str, Displacement] = {VARIANTS["nfa"]: "mix", VARIANTS["noise"]: "noise"}
        return displacements[wildcards["variants"]]

    # ---- classifiers ---------------------------------------------------------------------------------------

    def classifier(self, wildcards: Wildcards, threads: int) -> str:
        """Return the settings of a classifier (not compared)."""
        return as_json(self.plan.config.for_dataset(wildcards["dataset"]).classifiers[wildcards["classifier"]])

    def classifier_result_settings(self, wildcards: Wildcards) -> str:
        """Return the classifier settings that the result depends on, without those of unused augmentations."""
        unused = list_execution_settings(ClassifierConfig)
        # rules for classifiers trained on generated images lack this wildcard, and use the standard augmentation
        augmentation = as_dict(wildcards).get("augmentation", "standard")
        if "standard" not in augmentation:
            unused.add("standard")
        if get_variants_folder(augmentation) is None:
            unused.add("nfa_probability")
        classifier = self.plan.config.for_dataset(wildcards["dataset"]).classifiers[wildcards["classifier"]]
        return as_json(classifier, without=unused)

    def classifier_options(self, wildcards: Wildcards) -> list[str]:
        """Return the options that name training images and initial weights of a classifier trained on real images."""
        options = ["--augmentation", "standard" if "standard" in wildcards["augmentation"] else "none"]
        augmented = self.inputs.augmented_images(wildcards)
        if augmented:
            options += ["--augmented", augmented[0].rpartition("/")[0]]
        for path in self.inputs.weights_to_fine_tune(wildcards)[:1]:
            options += ["--start-from", path]
        for path in self.inputs.published_weights(wildcards):
            options += ["--classifier.weights", path]
        return options

    # ---- identities and tables -----------------------------------------------------------------------------

    def run(self, wildcards: Wildcards) -> str:
        """Return the identity of the run."""
        return json.dumps(Run.from_wildcards(as_dict(wildcards)).to_json())

    def runs_of_table(self, wildcards: Wildcards) -> str:
        """Return the identities of the runs of a table at the first seed; the stage derives those of the others."""
        rows = self._keep_first_seed(list_table_rows(self.plan.config, wildcards["table"]))
        runs = dict.fromkeys(run for row in rows for run in row.runs)
        return json.dumps([run.to_json() for run in runs])

    def rows_of_table(self, wildcards: Wildcards) -> str:
        """Return the rows of a table with their runs at the first seed; the stage derives those of the others."""
        rows = self._keep_first_seed(list_table_rows(self.plan.config, wildcards["table"]))
        return json.dumps([row.to_json() for row in rows])

    def seeds(self, wildcards: Wildcards) -> str:
        """Return the seeds of all runs."""
        return json.dumps(self.plan.config.seeds)

    def _keep_first_seed(self, rows: Iterable[TableRow]) -> list[TableRow]:
        """Remove the runs of all seeds but the first: those of all could exceed the limit on a command's length."""
        return [row.with_seeds(self.plan.config.seeds[:1]) for row in rows]

    def table(self, wildcards: Wildcards) -> str:
        """Return the settings of a table without its rows."""
        return as_json(self.plan.config.tables[wildcards["table"]], without=["experiments"])

    def code_of_table(self, wildcards: Wildcards) -> str:
        """Return digests of the user's files that define the metrics of a table."""
        names = _list_metrics(self.plan.config.tables[wildcards["table"]])
        return _compute_digests(METRICS[find_registered_name(name)].extension for name in names)

    # ---- claims --------------------------------------------------------------------------------------------

    def claims(self, wildcards: Wildcards) -> str:
        """Return the claims and their comparisons."""
        claims = self.plan.config.claims
        return json.dumps({name: claim.model_dump(mode="json") for name, claim in claims.items()})

    def tables_of_claims(self, wildcards: Wildcards) -> str:
        """Return, for each table that claims use, its settings that the choice of λ depends on."""
        tables = self.plan.config.tables
        return json.dumps(
            {name: json.loads(as_json(tables[name], without=_IGNORED_BY_CLAIMS)) for name in self._claimed_rows}
        )

    def rows_of_claims(self, wildcards: Wildcards) -> str:
        """Return the rows of the claims with their runs at the first seed; the stage derives those of the others."""
        rows = {name: self._keep_first_seed(rows) for name, rows in self._claimed_rows.items()}
        return json.dumps({name: [row.to_json() for row in rows] for name, rows in rows.items()})

    def code_of_claims(self, wildcards: Wildcards) -> str:
        """Return digests of the user's files that define the metrics of claims."""
        names = {comparison.metric for claim in self.plan.config.claims.values() for comparison in claim.comparisons}
        return _compute_digests(METRICS[find_registered_name(name)].extension for name in sorted(names))

    def _list_claimed_metrics(self, table: str) -> list[str]:
        """Return the metrics on which claims compare rows of a table."""
        comparisons = [comparison for claim in self.plan.config.claims.values() for comparison in claim.comparisons]
        return [comparison.metric for comparison in comparisons if any(row.table == table for row in comparison.rows)]

    @cached_property
    def _claimed_rows(self) -> dict[str, list[TableRow]]:
        return select_claimed_rows(self.plan.config)

    # ---- figures -------------------------------------------------------------------------------------------

    def figure(self, name: str) -> Param:
        """Make a params function that returns the settings of a figure."""
        return lambda wildcards: as_json(self.plan.config.figures[name])

    def files_of_figure(self, name: str) -> Param:
        """Make a params function that returns the files that a figure is drawn from, by name."""
        files = self.inputs.files_of_figure(name)
        return lambda wildcards: json.dumps(files(wildcards))

    def settings_read_by_figure(self, name: str) -> Param:
        """Make a params function that returns other blocks of settings that a figure depends on."""

        def read(wildcards: Wildcards) -> str:
            settings = self.plan.config.figures[name].reads(self.plan.config)
            return json.dumps({key: value.model_dump(mode="json") for key, value in settings.items()})

        return read

    def code_of_figure(self, name: str) -> Param:
        """Make a params function that returns the digest of the user's file that draws a figure, if any."""
        return lambda wildcards: _compute_digests([FIGURES[name].extension])

    def caption(self, name: str) -> UncomparedParam:
        """Make a params function that returns the caption of a figure in reports (not compared)."""
        return lambda wildcards, threads: self.plan.config.figures[name].describe(self.plan.config)

    # ---- the user's extensions -----------------------------------------------------------------------------

    def extension_options(self, wildcards: Wildcards, threads: int) -> list[str]:
        """Return the options that load the user's files (not compared: see :meth:`code`)."""
        return [text for file in self.plan.config.extensions for text in ("--extensions", file.as_posix())]

    def code(self, *groups: str) -> Callable[[Wildcards], str]:
        """Make a params function that returns digests of the user's files that implement the named blocks.

        Args:
            groups: wildcards that name a block (`dataset`, `flow`, `prior`, `classifier`), `learned_prior` for the
                prior if it is learned along with the flow, or `metrics` for the metrics of the run in tables and
                claims.
        """

        def compute(wildcards: Wildcards) -> str:
            named = {group: wildcards[group] for group in groups if group not in ("metrics", "learned_prior")}
            if "learned_prior" in groups and self.inputs.is_learned(wildcards["prior"]):
                named["prior"] = wildcards["prior"]
            files: list[Path | None] = [*self.plan.config.for_dataset(wildcards["dataset"]).list_extensions(**named)]
            if "metrics" in groups:
                files += [METRICS[name].extension for name in self._list_own_metrics(wildcards)]
            return _compute_digests(files)

        return compute

    def metric_options(self, wildcards: Wildcards) -> list[str]:
        """Return the options that select the user's metrics of this run; built-in metrics are always computed."""
        return [text for name in self._list_own_metrics(wildcards) for text in ("--metrics", name)]

    def _list_own_metrics(self, wildcards: Wildcards) -> list[str]:
        return sorted(self._own_metrics_of_runs.get(Run.from_wildcards(as_dict(wildcards)), ()))

    @cached_property
    def _own_metrics_of_runs(self) -> dict[Run, set[str]]:
        """For each run, the user's metrics of the tables that show it, and of the claims about these tables."""
        found: dict[Run, set[str]] = {}
        for table, settings in self.plan.config.tables.items():
            names = [*_list_metrics(settings), *self._list_claimed_metrics(table)]
            prefixed = [name for name in names if name.startswith(GENERATED_PREFIX)]
            of_generated = set(filter(_is_own_metric, map(find_registered_name, prefixed)))
            own = set(filter(_is_own_metric, map(find_registered_name, set(names) - set(prefixed))))
            if not own | of_generated:
                continue
            for row in list_table_rows(self.plan.config, table):
                for run in row.flow_runs:
                    found.setdefault(run, set()).update(own)
                for run in row.classifier_runs:
                    found.setdefault(run, set()).update(own if row.is_trained_on_real_images else of_generated)
        return found


def _list_metrics(table: TableSettings) -> list[str]:
    """Return the metrics of a table, and the metric that selects λ."""
    return [*table.metrics, *([f"{VALIDATION_PREFIX}{table.best_by}"] if table.best_by is not None else [])]


def _is_own_metric(metric: str) -> bool:
    """Return whether the user's code computes a metric."""
    return METRICS[metric].extension is not None and METRICS[metric].builder is not None


def _compute_digests(files: Iterable[Path | None]) -> str:
    """Return digests of the user's files, sorted; None, which stands for built-in code, is omitted."""
    return " ".join(hash_extension(file) for file in sorted({file for file in files if file is not None}))
