"""Rows of the tables of the config, and those of them that claims compare, with the runs that they summarise."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator, model_validator

from nfpi.config.claims import ComparedRow
from nfpi.config.datasets import PER_SEED, SOURCES, DatasetBlock
from nfpi.config.metrics import ACCURACIES, find_metric
from nfpi.config.settings import Config
from nfpi.runs import REFERENCE_AUGMENTATION, Run, name_refitted

if TYPE_CHECKING:
    import pandas as pd


def _read_run(value: Any) -> Run:
    if isinstance(value, Run):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"expected the identity of a run, received {value!r}")
    return Run.from_json(value)


RunIdentity = Annotated[Run, PlainValidator(_read_run), PlainSerializer(Run.to_json)]
"""A run that is read from JSON and written as JSON, with λ as `lambda`."""


class TableRow(BaseModel):
    """An experiment at one λ, with its runs of all seeds; in JSON, `weight` is named `lambda`.

    Attributes:
        experiment: index of the experiment in the table.
        label: label of the row.
        dataset: name of the data set.
        flow: name of the backbone; None: no flow is involved.
        prior: name of the prior, with a suffix if its Gaussians are estimated again (`nfpi.runs.REFITS`); at λ = 0 its
            runs may be in a folder that several priors share (`nfpi.runs.BASELINE`).
        weight: λ; None: no flow is involved, or its prior has no λ.
        has_other_weights: whether the experiment has further λ, so that its label alone does not identify the row.
        classifier: name of the classifier; None: only the flow is evaluated.
        augmentation: augmentations of the images that the classifier is trained on, `standard` for generated ones;
            None: no classifier.
        flow_runs: runs of the flow, one per seed; empty for a classifier trained on real images.
        classifier_runs: runs of the classifier, one per seed.
        reference_runs: runs of the same classifier trained on real images, which all rows of a data set share; empty if
            nothing needs them.
        sample_runs: measurements of the images that the classifier was trained on; empty if nothing needs them.
        split_ratio: number of test images per training image if the seeds' splits are drawn from the same images, so
            that they overlap; else 0 (:func:`compute_split_ratio`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)

    experiment: int
    dataset: str
    label: str = ""
    flow: str | None = None
    prior: str | None = None
    weight: float | None = Field(None, alias="lambda")
    has_other_weights: bool = False
    classifier: str | None = None
    augmentation: str | None = None
    flow_runs: tuple[RunIdentity, ...] = ()
    classifier_runs: tuple[RunIdentity, ...] = ()
    reference_runs: tuple[RunIdentity, ...] = ()
    sample_runs: tuple[RunIdentity, ...] = ()
    split_ratio: float = 0.0

    @model_validator(mode="after")
    def _check_runs(self) -> Self:
        if not self.runs:
            raise ValueError("row of a table: expected at least one run, received none")
        return self

    @property
    def runs(self) -> tuple[Run, ...]:
        """All runs whose metrics the row shows."""
        return self.flow_runs + self.classifier_runs + self.reference_runs + self.sample_runs

    def runs_of(self, accuracy: str) -> tuple[Run, ...]:
        """Return the runs whose predictions determine an accuracy (:data:`nfpi.config.metrics.ACCURACIES`)."""
        return self.flow_runs if ACCURACIES[accuracy] == "flow" else self.classifier_runs

    @property
    def is_trained_on_real_images(self) -> bool:
        """Whether the row is about a classifier trained on real images."""
        return not self.flow_runs

    @property
    def is_imported(self) -> bool:
        """Whether the row is about a trained model, whose seeds are draws of noise and samples, not trainings."""
        return any(run.is_imported for run in self.flow_runs)

    def with_seeds(self, seeds: Iterable[int]) -> TableRow:
        """Return a copy of the row with runs of these seeds instead of its own."""
        seeds = list(seeds)
        runs: dict[str, Any] = {}
        for name in ("flow_runs", "classifier_runs", "reference_runs", "sample_runs"):
            runs[name] = tuple(replace(run, seed=seed) for run in getattr(self, name)[:1] for seed in seeds)
        return self.model_copy(update=runs)


def list_table_rows(config: Config, table: str) -> list[TableRow]:
    """Return the rows of each experiment in turn, one per λ, ascending, including those that `best_only` hides.

    Args:
        config: the settings.
        table: name of a table.
    """
    rows = []
    asked = (*config.tables[table].metrics, *config.list_claimed_metrics(table))
    measured = {find_metric(name).model for name in asked}
    for index, experiment in enumerate(config.tables[table].experiments):
        weights: Sequence[float | None] = experiment.weights or [None]
        for weight in weights:
            pairs = config.list_runs(experiment, weight)
            of_flow = () if experiment.models == ["real"] else tuple(flow for flow, _ in pairs)
            models = measured.intersection(experiment.models)
            of_reference = [replace(run, augmentation=REFERENCE_AUGMENTATION) for _, run in pairs if run is not None]
            rows.append(
                TableRow(
                    experiment=index,
                    label=experiment.label,
                    dataset=experiment.dataset,
                    flow=experiment.flow if experiment.prior is not None else None,
                    prior=experiment.prior and name_refitted(experiment.prior, experiment.refit),
                    **{"lambda": weight if experiment.lambdas else None},
                    has_other_weights=len(weights) > 1,
                    classifier=experiment.classifier,
                    augmentation=experiment.augmentation if experiment.classifier is not None else None,
                    flow_runs=of_flow,
                    classifier_runs=tuple(classifier for _, classifier in pairs if classifier is not None),
                    reference_runs=tuple(run.without_flow for run in of_reference if "reference" in models),
                    sample_runs=tuple(run for run in of_reference if "samples" in models),
                    split_ratio=compute_split_ratio(config.datasets[experiment.dataset]),
                )
            )
    return rows


def list_tabled_runs(config: Config) -> list[Run]:
    """Return the runs of all tables, and so of the claims, which compare rows of tables."""
    return list(
        dict.fromkeys(run for name in config.tables for row in list_table_rows(config, name) for run in row.runs)
    )


def compute_split_ratio(dataset: DatasetBlock) -> float:
    """Compute the number of test images per training image if each seed draws both splits from the same images.

    It is 0 if all seeds have the same splits, or the source has its own test split. If that is not known from the
    settings, as for image folders and users' sources, the test split is assumed to be drawn: it is better for
    confidence intervals to be too wide than too narrow. Only `real_labels` tells that an image folder has its own test
    split. `train_per_class` and `test_per_class`, which make splits overlap less, are ignored.

    Args:
        dataset: settings of the data set.
    """
    traits = SOURCES[dataset.source].traits
    has_test_split = dataset.real_labels or traits.get("test_split", "images" in traits)
    if dataset.split_seed != PER_SEED or has_test_split:
        return 0.0
    trained_on = (1 - dataset.test_fraction) * (1 if dataset.refit else 1 - dataset.validation_fraction)
    return dataset.test_fraction / trained_on


def list_runs_to_compare(rows: Sequence[TableRow], metrics: Iterable[str]) -> list[Run]:
    """Return the runs whose accuracies may be compared per image; empty unless all runs have the same seed.

    Args:
        rows: rows of the table.
        metrics: its metrics.
    """
    if len({run.seed for row in rows for run in row.runs}) != 1:
        return []
    accuracies = sorted(ACCURACIES.keys() & set(metrics))
    found = [
        run
        for row in rows
        for name in accuracies
        if (name == "top1") == row.is_trained_on_real_images
        for run in row.runs_of(name)
    ]
    return list(dict.fromkeys(found))


# ---- rows that claims compare ---------------------------------------------------------------------------------


def find_compared_rows(compared: ComparedRow, rows: Sequence[TableRow]) -> list[TableRow]:
    """Return the rows of the experiment that a claim names, by ascending λ.

    Args:
        compared: the row, as named by the claim.
        rows: rows of its table.

    Raises:
        ValueError: no experiment, or more than one, matches.
    """
    index = compared.find_index({row.experiment: row for row in rows})
    return [row for row in rows if row.experiment == index]


def select_at_weight(rows: Sequence[TableRow], weight: str | float) -> Sequence[TableRow]:
    """Return the rows of an experiment among which a claim chooses λ (:class:`nfpi.config.claims.ComparedRow`)."""
    among = {"best": rows, "inner_best": rows[1:-1], "min": rows[:1], "max": rows[-1:], "equal_density": rows}
    return among[weight] if isinstance(weight, str) else [row for row in rows if (row.weight or 0.0) == weight]


def select_claimed_rows(config: Config) -> dict[str, list[TableRow]]:
    """Return the rows of tables that the claims compare, by table, in the order of the table.

    Where λ is chosen by validation, these are the rows of all λ of the experiment.
    """
    claimed: dict[str, list[TableRow]] = {}
    for claim in config.claims.values():
        for side in (row for comparison in claim.comparisons for row in comparison.rows):
            claimed.setdefault(str(side.table), []).extend(_select_rows_of_side(config, side))
    return {table: [row for row in list_table_rows(config, table) if row in named] for table, named in claimed.items()}


def list_claimed_runs(config: Config) -> list[Run]:
    """Return the runs whose metrics the claims compare."""
    return [run for rows in select_claimed_rows(config).values() for row in rows for run in row.runs]


def list_runs_compared_by_image(config: Config) -> list[Run]:
    """Return the runs whose predictions the claims compare image by image."""
    found: list[Run] = []
    pairs = [(claim, comparison) for claim in config.claims.values() for comparison in claim.comparisons]
    for claim, comparison in pairs:
        if comparison.needs_predictions(len(set(config.seeds) - set(claim.without_seeds))):
            for row in (row for side in comparison.rows for row in _select_rows_of_side(config, side)):
                found += row.runs_of(comparison.metric)
    return found


def _select_rows_of_side(config: Config, side: ComparedRow) -> Sequence[TableRow]:
    """Return the table rows of one side of a comparison, by ascending λ; for `inner_best`, those of all λ."""
    rows = find_compared_rows(side, list_table_rows(config, str(side.table)))
    return rows if side.weight == "inner_best" else select_at_weight(rows, side.weight)


def find_best_flow(root: Path, config: Config, frames: Mapping[str, pd.DataFrame]) -> Run | None:
    """Return the flow that is best on the validation split among the rows of tables; None: no model is there.

    Args:
        root: the folder results/{preset}.
        config: settings of the preset.
        frames: tables, by name.
    """
    found: dict[Run, float] = {}
    for name in (name for name in config.tables if name in frames):
        rows = {(row.experiment, row.weight): row for row in list_table_rows(config, name)}
        measured = frames[name].dropna(subset="validation")[["experiment", "lambda", "validation", "chosen_by"]]
        for experiment, weight, validation, chosen_by in measured.itertuples(index=False):
            row = rows.get((experiment, None if math.isnan(weight) else weight))  # NaN: a prior without λ
            runs = row.flow_runs if row else ()
            sign = -1 if find_metric(chosen_by).higher_is_better is False else 1
            found |= {run: sign * validation for run in runs if Path(root, run.folder, "model").is_dir()}
    return max(found, key=lambda run: found[run], default=None)


def compose_use(config: Config, root: Path, run: Run) -> str:
    """Return the command that classifies a photo, or for vectors the Python call, by the model in results/{preset}."""
    model = Path(root, run.folder, "model")
    if config.datasets[run.dataset].source in ("arrays", "features"):
        return f'ClassConditionalFlow.from_pretrained("{model.as_posix()}").predict(vectors)'
    return f"nfpi classify {shlex.quote(model.as_posix())} photo.jpg --resize"
