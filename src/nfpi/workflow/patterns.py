"""Wildcard constraints of the rules."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import get_args

from nfpi.config.base import Augmentation
from nfpi.config.classifiers import CLASSIFIERS
from nfpi.config.settings import Config
from nfpi.runs import (
    BASELINE,
    NO_FLOW,
    OWN,
    REFERENCE_AUGMENTATION,
    REFITS,
    SOURCE,
    SPLITS_PATTERN,
    VARIANTS,
    WEIGHT_PATTERN,
    name_refitted,
)


@dataclass(frozen=True)
class Patterns:
    """Regular expressions of the wildcards, each method named after what matches.

    Args:
        config: the settings.
    """

    config: Config

    def wildcard_constraints(self) -> dict[str, str]:
        """Return a regular expression for each wildcard."""
        config = self.config
        flow, prior = _make_pattern(config.flows), self.priors()
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

    def datasets(self, *, encoded: bool) -> str:
        """Return a regular expression that matches the data sets encoded by an autoencoder, or the others."""
        names = [name for name, dataset in self.config.datasets.items() if (dataset.vae is not None) == encoded]
        return _make_pattern(names)

    def fitted_priors(self) -> str:
        """Return a regular expression of the priors that are fitted."""
        return _make_pattern([name for name in self.config.priors if self.config.is_fitted(name)])

    def priors(self) -> str:
        """Return a regular expression of all priors, as in paths."""
        return f"{OWN}|{self.trained_priors()}|{self.refitted_priors()}"

    def trained_priors(self) -> str:
        """Return a regular expression of the priors, as in paths, under which flows are trained."""
        return _make_pattern([*self.config.priors, *BASELINE.values()])

    def refitted_priors(self) -> str:
        """Return a regular expression of the priors, as in paths, that are estimated again after a training."""
        names = [OWN, *self.config.priors, *BASELINE.values()]
        return _make_pattern([name_refitted(name, refit) for name in names for refit in REFITS])

    def published_models(self) -> str:
        """Return a regular expression of the classifier models with published weights."""
        return _make_pattern([name for name in CLASSIFIERS if "published" in CLASSIFIERS[name].traits])


def _make_pattern(names: object) -> str:
    """Return a regular expression that matches these names; without names it matches nothing."""
    return "|".join(map(re.escape, names)) or "(?!)"  # type: ignore[call-overload]
