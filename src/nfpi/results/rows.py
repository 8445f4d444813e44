"""Rows of a table as the runs behind each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from nfpi.config.metrics import ACCURACIES
from nfpi.runs import Run, name_in_files, name_in_python


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """An experiment at one λ: what its row says of itself, and its runs, one a seed.

    Attributes:
        experiment: its index in the table.
        label: what the row is called.
        dataset: name in the config.
        flow: name of the backbone; None: no flow has a part in it.
        prior: as the experiment names it; its runs may lie under the baseline that it shares with other priors.
        weight: λ; None: there is none.
        classifier: name; None: the flow alone.
        augmentation: of the classifier; None: there is none.
        flow_runs: the flow at each seed; none where a classifier of real images is what the row is about.
        classifier_runs: the classifier at each seed, where there is one.
    """

    experiment: int
    dataset: str
    label: str = ""
    flow: str | None = None
    prior: str | None = None
    weight: float | None = None
    classifier: str | None = None
    augmentation: str | None = None
    flow_runs: tuple[Run, ...] = ()
    classifier_runs: tuple[Run, ...] = ()

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("row of a table: expected at least one run, received none")

    @property
    def runs(self) -> tuple[Run, ...]:
        """All runs whose metrics the row shows."""
        return self.flow_runs + self.classifier_runs

    @property
    def is_of_real_images(self) -> bool:
        """Whether the row is about a classifier of real images."""
        return not self.flow_runs

    def with_seeds(self, seeds: Iterable[int]) -> TableRow:
        """Return the same row with a run for each of these seeds, in the place of those that it has."""

        def runs(some: tuple[Run, ...]) -> tuple[Run, ...]:
            return tuple(replace(some[0], seed=seed) for seed in seeds) if some else ()

        seeds = list(seeds)
        return replace(self, flow_runs=runs(self.flow_runs), classifier_runs=runs(self.classifier_runs))

    def to_json(self) -> dict[str, Any]:
        """As commands have it; λ is `lambda` there."""
        record: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                runs = [run.to_json() for run in value] if isinstance(value, tuple) else None
                record[name_in_files(field.name)] = value if runs is None else runs
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> TableRow:
        """Return the row of a :meth:`to_json`.

        Raises:
            ValueError: the record is not a row.
        """
        values = {name_in_python(name): value for name, value in record.items()}
        try:
            for name in ("flow_runs", "classifier_runs"):
                values[name] = tuple(Run.from_json(run) for run in values.get(name, ()))
            return cls(**values)
        except (TypeError, AttributeError) as error:
            raise ValueError(f"row of a table: expected its runs, received {dict(record)} ({error})") from None


def runs_to_compare(rows: Sequence[TableRow], metrics: Iterable[str]) -> list[Run]:
    """The runs of a table of one seed whose accuracies are compared image by image; none where there are more seeds.

    Args:
        rows: of the table.
        metrics: that it shows.
    """
    if len({run.seed for row in rows for run in row.runs}) != 1:
        return []
    shown = set(metrics) & ACCURACIES.keys()
    found: dict[tuple[str, str], list[Run]] = {}
    for row in rows:
        measured = {"top1": row.classifier_runs} if row.is_of_real_images else {}
        if row.flow_runs:
            measured = {"nf_acc": row.flow_runs, "cnn_acc": row.classifier_runs}
        for name in sorted(shown & measured.keys()):
            found.setdefault((row.dataset, name), []).extend(measured[name])
    return list(dict.fromkeys(run for runs in found.values() if len(runs) > 1 for run in runs))
