"""Expand a table of the config into its rows and their runs."""

from __future__ import annotations

from collections.abc import Sequence

from nfpi.config.settings import Config
from nfpi.results.rows import TableRow


def list_table_rows(config: Config, table: str) -> list[TableRow]:
    """Return one row for each experiment and λ, by ascending λ, including those that `best_only` hides.

    Args:
        config: the settings.
        table: name of a table.
    """
    rows = []
    for index, experiment in enumerate(config.tables[table].experiments):
        weights: Sequence[float | None] = experiment.weights or [None]
        for weight in weights:
            pairs = config.list_runs(experiment, weight)
            of_flow = () if config.learns_from_real_images(experiment) else tuple(flow for flow, _ in pairs)
            rows.append(
                TableRow(
                    experiment=index,
                    label=experiment.label,
                    dataset=experiment.dataset,
                    flow=experiment.flow if experiment.prior is not None else None,
                    prior=experiment.prior,
                    weight=weight if experiment.lambdas else None,
                    has_other_weights=len(weights) > 1,
                    classifier=experiment.classifier,
                    augmentation=experiment.augmentation if experiment.classifier is not None else None,
                    flow_runs=of_flow,
                    classifier_runs=tuple(classifier for _, classifier in pairs if classifier is not None),
                )
            )
    return rows
