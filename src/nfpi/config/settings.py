"""All settings of one preset, how presets are merged, and what jobs look up in them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PrivateAttr, model_validator

from nfpi.config.base import UNIQUE, ConfigError, LocalPath, Name, Seed, Settings, suggest
from nfpi.config.claims import Claim, check_claims
from nfpi.config.classifiers import CLASSIFIERS, ClassifierConfig, check_start_from
from nfpi.config.cluster import Cluster, JobName, Resources
from nfpi.config.datasets import PER_SEED, SOURCES, DatasetBlock, DatasetConfig
from nfpi.config.experiments import Experiment, Figures, Table, check_experiment
from nfpi.config.flows import (
    FLOWS,
    EvaluationConfig,
    FlowConfig,
    GenerationConfig,
    NfaConfig,
    QualityConfig,
    TrainedSettings,
    TrainingConfig,
)
from nfpi.config.priors import (
    PRIORS,
    FixedPointSettings,
    PriorConfig,
    compute_relative_weight,
    compute_weight,
    get_alpha,
)
from nfpi.config.registry import BlockRegistry, Registry
from nfpi.runs import (
    BASELINE,
    COMMON_SPLITS,
    OWN,
    RESERVED_NAMES,
    SPLITS_OF_SEED,
    Run,
    name_refitted,
    parse_splits_seed,
    split_refitted,
)

_SELECTORS: dict[str, tuple[str, Registry]] = {
    "datasets": ("source", SOURCES),
    "flows": (FLOWS.key, FLOWS),
    "priors": (PRIORS.key, PRIORS),
    "classifiers": ("model", CLASSIFIERS),
}
"""Groups of settings whose blocks each select a variant: the setting that names it, and the registry of the variants.
"""
_BLOCKS: dict[str, BlockRegistry[Any]] = {"flows": FLOWS, "priors": PRIORS}
"""Groups in which blocks of different variants have different settings."""
REMOVABLE = ("tables", "figures", "claims")
"""Groups of settings in which null removes an inherited block, and :data:`ALL_INHERITED` all."""
ALL_INHERITED = "*"
"""Key that, with the value null, removes all inherited blocks."""


def merge(base: Mapping[str, Any], *overlays: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of `base` with the overlays applied: mappings are merged by key, anything else is replaced.

    If an overlay selects another variant (`kind:`, `method:`) in a block of `flows:` or `priors:`, it replaces the
    whole block, since the variants have different settings. `"*": null` in an overlay's `tables:`, `figures:` or
    `claims:` removes those of `base` and of the overlays before it.
    """
    merged = copy.deepcopy(dict(base))
    for overlay in overlays:
        merged = _merge_at((), merged, overlay)
    return merged


def _merge_at(where: tuple[str, ...], base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Merge an overlay into `base`, the part of the settings at the keys `where`."""
    merged = dict(base)
    if len(where) == 1 and where[0] in REMOVABLE and overlay.get(ALL_INHERITED, ...) is None:
        merged = {}
        overlay = {key: value for key, value in overlay.items() if key != ALL_INHERITED}
    registry = _BLOCKS.get(where[0]) if len(where) == 1 else None
    for key, value in overlay.items():
        known = merged.get(key)
        if isinstance(known, Mapping) and isinstance(value, Mapping):
            is_other = registry is not None and registry.selects_other_variant(known, value)
            value = _merge_at((*where, key), {} if is_other else known, value)
        merged[key] = copy.deepcopy(value)
    return merged


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, int) else value


class Config(Settings):
    """All settings of one preset."""

    extensions: list[LocalPath] = []
    """Python files that add priors, flows, metrics or classifiers (docs/extending.md), in addition to those of the
    preset that this one extends"""
    seeds: Annotated[list[Seed], Field(min_length=1), UNIQUE, BeforeValidator(_as_list)] = [1999]
    """seeds of the runs, or a single one; each has its own initial state, flow, generated images and classifier"""
    datasets: dict[Name, DatasetBlock] = {}
    flows: dict[Name, FlowConfig] = {}
    """backbones by name"""
    training: TrainingConfig = TrainingConfig()
    priors: dict[Name, PriorConfig] = {}
    evaluation: EvaluationConfig = EvaluationConfig()
    generation: GenerationConfig = GenerationConfig()
    quality: QualityConfig = QualityConfig()
    nfa: NfaConfig = NfaConfig()
    classifiers: dict[Name, ClassifierConfig] = {}
    tables: dict[Name, Table] = {}
    figures: Figures = {}
    claims: dict[Name, Claim] = {}
    """statements of the paper, as comparisons of table rows: `snakemake claims` (docs/experiments.md)"""
    resources: dict[JobName, Resources] = {}
    cluster: Cluster | None = None
    """cluster that jobs are submitted to (examples: profiles/); None: jobs run on this machine"""

    _for_dataset: dict[str, Config] = PrivateAttr(default_factory=dict)

    def for_dataset(self, dataset: str) -> Config:
        """Return the settings with the overrides of a data set applied."""
        overrides: Mapping[Any, Any] = self.datasets[dataset].overrides
        if not overrides:
            return self
        if dataset not in self._for_dataset:
            self._for_dataset[dataset] = Config.model_validate(merge(self.model_dump(), overrides))
        return self._for_dataset[dataset]

    def resolve_training(self, dataset: str, flow: str) -> TrainingConfig:
        """Return the training settings of a backbone on a data set.

        The common settings are overridden by those of the backbone, then of the data set, then of the data set for this
        backbone. Those of the backbone do not apply if the data set selects another kind of backbone.
        """
        overrides, block = self.datasets[dataset].overrides, self.flows[flow]
        is_replaced = self.for_dataset(dataset).flows[flow].kind != block.kind
        layers = (
            {} if is_replaced else block.training,
            overrides.get("training", {}),
            overrides.get("flows", {}).get(flow, {}).get("training", {}),
        )
        return TrainingConfig.model_validate(merge(self.training.model_dump(), *layers))

    def splits_of(self, dataset: str, seed: int) -> str:
        """Return the value of the wildcard `splits` (:data:`nfpi.runs.SPLITS`) for the runs of a seed."""
        has_own = self.datasets[dataset].split_seed == PER_SEED
        return SPLITS_OF_SEED.format(seed=seed) if has_own else COMMON_SPLITS

    def run(self, dataset: str, flow: str, prior: str, weight: float, seed: int, refit: str | None = None) -> Run:
        """Return the run of a flow; at λ = 0, priors that then keep the initial Gaussians share the baseline's run."""
        block = self.priors.get(prior)  # a trained model's own prior has none
        if weight == 0 and block is not None and PRIORS[block.method].traits.get("keeps_initial_at_zero", False):
            prior = BASELINE[block.start]
        return Run(dataset=dataset, flow=flow, prior=name_refitted(prior, refit), weight=weight, seed=seed)

    def start_of(self, prior: str) -> str:
        """Return the kind of a prior's initial Gaussians, `start`.

        Args:
            prior: name of the prior in paths, which at λ = 0 may be that of a baseline (`nfpi.runs.BASELINE`).
        """
        prior, _ = split_refitted(prior)
        starts = {baseline: start for start, baseline in BASELINE.items()}
        return starts[prior] if prior in starts else self.priors[prior].start

    def is_fitted(self, prior: str) -> bool:
        """Return whether the Gaussians of a prior, named as in paths, are fitted once, to the initial state."""
        return prior in self.priors and not PRIORS[self.priors[prior].method].traits["learned"]

    def is_learned(self, prior: str) -> bool:
        """Return whether the Gaussians of a prior are learned along with the flow."""
        return prior in self.priors and not self.is_fitted(prior)

    def get_dataset(self, name: str, splits: str) -> DatasetConfig:
        """Return the settings of a data set, with the split seed that the wildcard `splits` names.

        Settings for other groups and stages are left out.
        """
        seed = parse_splits_seed(splits)
        settings = self.datasets[name].model_dump() | {"overrides": {}, "real_labels": False}
        return DatasetConfig.model_validate(settings if seed is None else settings | {"split_seed": seed})

    def fine_tuned_from(self, run: Run) -> Run | None:
        """Return the run whose classifier is fine-tuned in this run (`start_from`); None: there is none."""
        if run.classifier is None:
            return None
        other = self.for_dataset(run.dataset).classifiers[run.classifier].start_from
        if other is None:
            return None
        return Run(dataset=run.dataset, seed=run.seed, classifier=other, augmentation="none")

    def list_runs(self, experiment: Experiment, weight: float | None) -> list[tuple[Run, Run | None]]:
        """Return the runs of the flow and of the classifier for each seed.

        Without a flow (`weight` is None), both are the classifier's run; without a classifier, the second is None.
        """
        of_classifier: dict[str, Any] = {
            "classifier": experiment.classifier,
            "augmentation": experiment.augmentation if experiment.models == ["real"] else None,
        }
        if experiment.prior is None or weight is None:
            without_flow = [Run(dataset=experiment.dataset, seed=seed, **of_classifier) for seed in self.seeds]
            return [(run, run) for run in without_flow]
        of_flow = experiment.dataset, experiment.flow, experiment.prior, weight
        flows = [self.run(*of_flow, seed, experiment.refit) for seed in self.seeds]
        return [(flow, replace(flow, **of_classifier) if experiment.classifier else None) for flow in flows]

    def fixed_point_settings(self, where: str, prior: str) -> FixedPointSettings:
        """Return the settings of a prior that is fitted once by fixed-point iteration.

        Args:
            where: key that requires such a prior, for the error message.
            prior: name of the prior.

        Raises:
            ConfigError: the prior has another method, or its fit is repeated during training.
        """
        block = self.priors.get(prior)
        settings = None if block is None else PRIORS.extract_settings(block)
        if block is None or not isinstance(settings, FixedPointSettings) or PRIORS[block.method].traits["learned"]:
            received = f"'{prior}' ({'of a trained model' if block is None else block.method})"
            raise ConfigError(f"{where}: expected a prior fitted once by fixed-point iteration, received {received}")
        return settings

    def list_extensions(self, **names: str | None) -> list[Path]:
        """Return the user's files that define what blocks select; jobs that use the blocks depend on them.

        A trained model may have any flow and prior.

        Args:
            **names: names of blocks, as in `flow="mef", prior="fpi"`; a baseline, which has no block, is ignored.
        """
        files = set()
        for kind, name in names.items():
            key, registry = _SELECTORS[f"{kind}s"]
            block = getattr(self, f"{kind}s").get(split_refitted(name)[0] if kind == "prior" and name else name)
            files.add(registry[getattr(block, key)].extension if block is not None else None)
            if isinstance(block, TrainedSettings):
                files |= {registry[name].extension for registry in (FLOWS, PRIORS) for name in registry}
        return sorted(file for file in files if file is not None)

    def iterate_experiments(self) -> Iterator[tuple[str, Experiment]]:
        """Yield every experiment with the name of its table: (table, experiment)."""
        for name, table in self.tables.items():
            for experiment in table.experiments:
                yield name, experiment

    def list_claimed_metrics(self, table: str) -> list[str]:
        """Return the metrics on which claims compare rows of a table."""
        comparisons = [comparison for claim in self.claims.values() for comparison in claim.comparisons]
        return [comparison.metric for comparison in comparisons if any(row.table == table for row in comparison.rows)]

    def list_table_figures(self, table: str) -> list[str]:
        """Return the names of the figures that are drawn whenever a table is made."""
        return [name for name, figure in self.figures.items() if getattr(figure, "table", None) == table]

    def find_model(self, settings: Any) -> TrainedSettings | None:
        """Return the trained model that an experiment or a figure names as its flow; None: it names none."""
        flow = self.flows.get(getattr(settings, "flow", ""))
        return flow if isinstance(flow, TrainedSettings) and getattr(settings, "prior", OWN) is not None else None

    @model_validator(mode="after")
    def _check(self) -> Config:
        self._check_names()
        self._resolve_weights()
        check_start_from(self.classifiers)
        self._check_features()
        for table, experiment in self.iterate_experiments():
            check_experiment(f"tables.{table}", experiment, self.priors, self.classifiers)
        check_claims(self.claims, self.tables)
        return self

    def _check_names(self) -> None:
        """Raise ConfigError if a block is named that does not exist, or has a reserved name."""
        named: list[tuple[str, Settings]] = [
            (f"tables.{table}", settings) for table, settings in self.iterate_experiments()
        ]
        named += [(f"figures.{name}", figure) for name, figure in self.figures.items()]
        for where, settings in named:
            for group in (*_SELECTORS, "tables"):
                kind, known = group.removesuffix("s"), getattr(self, group)
                name = getattr(settings, kind, None)
                if kind == "prior" and self.find_model(settings) is not None:
                    continue
                uses_no_flow = kind == "flow" and getattr(settings, "prior", "") is None
                if name is not None and name not in known and not uses_no_flow:
                    raise ConfigError(f"{where}: unknown {kind} '{name}'{suggest(name, known)}")
        other = self.evaluation.unknown
        if other is not None and other not in self.datasets:
            raise ConfigError(f"evaluation.unknown: unknown dataset '{other}'{suggest(other, self.datasets)}")
        for group, reserved in RESERVED_NAMES.items():
            for name in getattr(self, group):
                if name in reserved or (group == "priors" and split_refitted(name)[1]):
                    raise ConfigError(f"{group}.{name}: this name is reserved: choose another one")

    def _check_features(self) -> None:
        """Raise ConfigError if features are those of a data set or a classifier that cannot have them."""
        pixels = {name: None for name, block in self.datasets.items() if block.vae is None and block.features is None}
        trained = [name for name, block in self.classifiers.items() if block.train_on == "real" and block.keep]
        known: dict[str, Any] = {"dataset": pixels, "trained_on": {**pixels, None: None}, "classifier": trained}
        for name, block in self.datasets.items():
            for kind, received in block.features or ():
                if received not in known.get(kind, [received]):
                    expected = "classifier with train_on: real, kept" if kind == "classifier" else "data set of pixels"
                    where, hint = f"datasets.{name}.features.{kind}", suggest(received, filter(None, known[kind]))
                    raise ConfigError(f"{where}: expected a {expected}, received '{received}'{hint}")

    def _resolve_weights(self) -> None:
        """Replace the relative weights of experiments and figures by λ; those of trained models have the model's λ."""
        for name, table in self.tables.items():
            experiments = [self._resolve_experiment(f"tables.{name}", experiment) for experiment in table.experiments]
            self.tables[name] = table.model_copy(update={"experiments": experiments})
        for name, figure in self.figures.items():
            if (model := self.find_model(figure)) is not None:
                own = {"prior": OWN, "weight": model.weight, "lambdas": [model.weight]}
                changes = {key: value for key, value in own.items() if hasattr(figure, key)}
                self.figures[name] = figure.model_copy(update=changes)
                continue
            if relative_weights := getattr(figure, "relative_weights", []):
                lambdas = self._compute_weights(f"figures.{name}.relative_weights", figure, relative_weights)
                self.figures[name] = figure.model_copy(update={"lambdas": lambdas, "relative_weights": []})

    def _resolve_experiment(self, where: str, experiment: Experiment) -> Experiment:
        if (model := self.find_model(experiment)) is not None:
            return experiment.choose_own_prior(where, model.weight)
        if not experiment.relative_weights:
            return experiment
        where, relative_weights = f"{where}.relative_weights", experiment.relative_weights
        weights = self._compute_weights(where, experiment, relative_weights)
        return experiment.model_copy(update={"lambdas": weights, "relative_weights": []})

    def find_relative_weight(self, dataset: str, prior: str, weight: float) -> float | None:
        """Return s₀ of λ for a data set and a prior in paths; None: the prior has no α, or K or D is unknown."""
        size, block = self.datasets[dataset], self.priors.get(split_refitted(prior)[0])
        alpha = None if block is None else get_alpha(block)
        if alpha is None or size.num_classes is None or size.num_dimensions is None:
            return None
        return compute_relative_weight(weight, alpha, size.num_classes, size.num_dimensions)

    def _compute_weights(self, where: str, settings: Any, relative_weights: list[float]) -> list[float]:
        """Compute λ of relative weights (s₀) of an experiment or a figure, for its data set and prior.

        Raises:
            ConfigError: the prior has no α, or K and D of the data set are not known before it is read.
        """
        dataset, alpha = self.datasets[settings.dataset], get_alpha(self.priors[settings.prior])
        if alpha is None:
            raise ConfigError(f"{where}: expected lambdas: prior '{settings.prior}' has no alpha")
        num_classes, num_dimensions = dataset.num_classes, dataset.num_dimensions
        if num_classes is None or num_dimensions is None:
            cure = "" if dataset.vae is not None else f", or datasets.{settings.dataset} with classes and shape"
            raise ConfigError(f"{where}: the size of data set '{settings.dataset}' is unknown: expected lambdas{cure}")
        return [compute_weight(value, alpha, num_classes, num_dimensions) for value in relative_weights]
