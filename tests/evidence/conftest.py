"""Results of a small preset, written without any training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from nfpi.config.settings import Config
from nfpi.evidence.keeping import gather_evidence, replace_seeds
from nfpi.results.recorded.calls import StoredSettings
from nfpi.results.recorded.predictions import write_predictions
from nfpi.results.recorded.records import write_metrics
from nfpi.results.tables.rows import list_tabled_runs
from nfpi.runs import Run
from nfpi.runtime.divergence import Diverged, mark_diverged

N = 100
"""Number of test images; each is one percent."""
CONFIG: dict[str, Any] = {
    "datasets": {"animals": {}},
    "training": {"epochs": 2},
    "flows": {"mef": {}},
    "priors": {"fpi": {}},
    "classifiers": {"resnet18": {}},
    "tables": {
        "table2": {
            "title": "Accuracy against λ",
            "metrics": ["nf_acc", "cnn_acc"],
            "experiments": [{"dataset": "animals", "lambdas": [0, 1e4, 1e9]}],
        }
    },
    "figures": {"accuracy_against_weight": {"table": "table2"}},
}


@dataclass
class Results:
    """results/{preset}, and the evidence gathered from it."""

    root: Path
    evidence: Path
    stored: StoredSettings

    def make_runs(self, seed: int, *, epochs: int = 2, without: tuple[float, ...] = (), shift: float = 0.0) -> None:
        """Write the runs of a seed; the one of the largest λ diverged."""
        for run in list_tabled_runs(replace_seeds(self.stored.config, [seed])):
            if run.weight in without:
                continue
            if run.weight == 1e9:
                paths = [self.root / run.folder / name for name in ("metrics.json", "predictions.npz")]
                mark_diverged(paths, Diverged(3, 1, "variance", 1e9))
            else:
                self.measure(run, epochs=epochs, shift=shift)

    def measure(self, run: Run, *, epochs: int = 2, shift: float = 0.0) -> None:
        """Write the metrics and predictions of a run."""
        value = 80 + run.seed + (5 if run.weight else 0) + shift
        names = ("nf_acc", "validation_nf_acc") if run.classifier is None else ("cnn_acc", "validation_cnn_acc")
        write_metrics(
            self.root / run.folder / "metrics.json",
            dict.fromkeys(names, value),
            run=run,
            n=N,
            seed=run.seed,
            settings={"training": {"epochs": epochs, "workers": run.seed}, "seed": run.seed},
            device="a machine",
            seconds=1.0,
        )
        labels = torch.arange(N) % 3
        predicted = torch.where(torch.arange(N) < value, labels, (labels + 1) % 3)
        log_prob = torch.randn(N, 3, generator=torch.Generator().manual_seed(run.seed))
        log_prob[torch.arange(N), predicted] += 20
        write_predictions(self.root / run.folder / "predictions.npz", labels, log_prob)

    def gather(self, **options: Any) -> Config:
        """Gather the evidence."""
        return gather_evidence(self.root, self.evidence, self.stored, **options)


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """A preset of one table, without runs."""
    stored = StoredSettings.of("mine", Config.model_validate(CONFIG))
    return Results(tmp_path / "results/mine", tmp_path / "evidence/mine", stored)
