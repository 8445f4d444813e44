"""Whether the settings of a preset fit together: blocks that name each other, experiments, cluster, claims."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nfpi.config.base import Settings, suggest
from nfpi.config.claims import check_claims
from nfpi.config.cluster import RESUMED, Resources
from nfpi.config.metrics import VALIDATION_PREFIX, metric
from nfpi.config.priors import PRIORS
from nfpi.runs import OWN, RESERVED_NAMES, split_refitted

if TYPE_CHECKING:
    from nfpi.config.settings import Config

_NAMED = ("dataset", "flow", "prior", "classifier", "table")
"""kinds of blocks that experiments and figures name"""


def check_names(config: Config) -> None:
    """Raise ValueError if a block is named that does not exist, or has a reserved name."""
    named: list[tuple[str, Settings]] = [
        (f"tables.{table}", experiment) for table, experiment in config.iterate_experiments()
    ]
    named += [(f"figures.{name}", figure) for name, figure in config.figures.items()]
    for where, settings in named:
        for kind in _NAMED:
            name, known = getattr(settings, kind, None), getattr(config, f"{kind}s")
            if kind == "prior" and config.find_model(settings) is not None:
                continue
            uses_no_flow = kind == "flow" and getattr(settings, "prior", "") is None
            if name is not None and name not in known and not uses_no_flow:
                raise ValueError(f"{where}: unknown {kind} '{name}'{suggest(name, known)}")
    other = config.evaluation.unknown
    if other is not None and other not in config.datasets:
        raise ValueError(f"evaluation.unknown: unknown dataset '{other}'{suggest(other, config.datasets)}")
    for group, reserved in RESERVED_NAMES.items():
        for name in getattr(config, group):
            if name in reserved or (group == "priors" and split_refitted(name)[1]):
                raise ValueError(f"{group}.{name}: this name is reserved: choose another one")


def check_consistency(config: Config) -> None:
    """Raise ValueError if settings do not fit together; the λ of experiments are known."""
    _check_start_from(config)
    _check_experiments(config)
    _check_warning(config)
    check_claims(config.claims, config.tables)
    _check_best_by(config)


def _check_start_from(config: Config) -> None:
    """Raise ValueError if a classifier is fine-tuned that does not take real images, or from one that does not."""
    for name, classifier in config.classifiers.items():
        if classifier.train_on != "real" and (classifier.start_from is not None or classifier.pretrained):
            raise ValueError(f"classifiers.{name}: start_from and pretrained need train_on: real")
        if classifier.start_from is None:
            continue
        where, other = f"classifiers.{name}.start_from", config.classifiers.get(classifier.start_from)
        if other is None:
            hint = suggest(classifier.start_from, config.classifiers)
            raise ValueError(f"{where}: unknown classifier '{classifier.start_from}'{hint}")
        if other.start_from is not None or not other.keep or other.train_on != "real":
            expected = "a classifier with train_on: real and keep: true, and without start_from"
            raise ValueError(f"{where}: expected {expected}, received '{classifier.start_from}'")


def _check_experiments(config: Config) -> None:
    """Raise ValueError if the prior, λ, refit and classifier of an experiment do not go together."""
    for table, experiment in config.iterate_experiments():
        where = f"tables.{table}"
        if experiment.prior not in (None, OWN):
            method = PRIORS[config.priors[experiment.prior].method]
            uses_weight = method.traits["uses_weight"]
            if uses_weight != bool(experiment.lambdas):
                expected = f"expected {'at least one' if uses_weight else 'none'} for prior '{experiment.prior}'"
                received = ", ".join(f"{weight:g}" for weight in experiment.lambdas) or "none"
                cure = ": a method without λ is registered with uses_weight=False" if method.extension else ""
                raise ValueError(f"{where}: lambdas: {expected} on '{experiment.dataset}', received {received}{cure}")
            if experiment.refit == "prior" and method.traits["learned"]:
                raise ValueError(
                    f"{where}: refit: expected moments for prior '{experiment.prior}', which is learned along with "
                    "the flow, received prior"
                )
        if experiment.classifier is None:
            continue
        needed = "needs a prior and augmentation: standard"
        fits = experiment.prior is not None and experiment.augmentation == "standard"
        if config.classifiers[experiment.classifier].train_on == "real":
            needed = "needs a prior if its augmentation has nfa or noise, and none otherwise"
            fits = (experiment.prior is not None) == experiment.uses_variants
        if not fits:
            raise ValueError(f"{where}: classifier '{experiment.classifier}' {needed}")


def _check_warning(config: Config) -> None:
    """Raise ValueError if jobs are warned of their time limit as soon as they start."""
    if (cluster := config.cluster) is None:
        return
    for stage in sorted(RESUMED):
        asked = config.resources.get(stage, Resources())
        limit = 60 * min(asked.runtime, cluster.find_longest_runtime(asked.gpu > 0) or asked.runtime)
        if cluster.warn_seconds >= limit:  # each job would be told to stop as soon as it starts
            expected = f"expected less than the time limit of {stage}, {limit} s"
            raise ValueError(f"cluster.warn_seconds: {expected}, received {cluster.warn_seconds}")


def _check_best_by(config: Config) -> None:
    """Raise ValueError if a table chooses λ by a metric that one of its experiments does not measure."""
    for name, experiment in config.iterate_experiments():
        chosen_by = config.tables[name].best_by
        if chosen_by is None or len(set(experiment.lambdas)) < 2:
            continue
        if metric(f"{VALIDATION_PREFIX}{chosen_by}").model not in (None, *experiment.models):
            raise ValueError(
                f"tables.{name}: best_by: expected a metric that all its experiments measure (top1 for classifiers "
                f"with train_on: real), received {chosen_by}"
            )
