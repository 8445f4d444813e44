"""What the tables and figures of the config are made from, and their targets."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from snakemake.exceptions import WorkflowError

from nfpi.config import NO_FLOW, Experiment, format_weight, leaf_prior

FIGURES_OF = {"table2": ["accuracy_against_weight"]}
"""The figures that are drawn from a table and made along with it."""


def leaves_of(experiment: Experiment) -> Iterator[str]:
    """The folders of an experiment's runs; of those without a flow, where its classifiers lie."""
    for seed in SETTINGS.seeds:
        if experiment.prior is None:
            yield f"{ROOT}/{experiment.dataset}/{NO_FLOW}/seed={seed}"
        for weight in experiment.lambdas:
            prior = leaf_prior(experiment.prior, SETTINGS.priors[experiment.prior], weight)
            yield LEAF.format(dataset=experiment.dataset, prior=prior, lam=format_weight(weight), seed=seed)


def metrics_of(wildcards: Wildcards) -> list[str]:
    """Input function: the metrics of all runs that a table is made from."""
    files = []
    for experiment in SETTINGS.tables[wildcards.table].experiments:
        classifier = experiment.classifier
        for leaf in leaves_of(experiment):
            if (
                classifier
                and SETTINGS.for_dataset(experiment.dataset).classifiers[classifier].train_on == "real"
            ):
                files.append(f"{leaf}/{classifier}/augmentation={experiment.augmentation}/metrics.json")
                continue
            files.append(f"{leaf}/metrics.json")
            if classifier:
                files.append(f"{leaf}/{classifier}/metrics.json")
    return list(dict.fromkeys(files))


def table_files(name: str) -> list[str]:
    """A table in its three forms."""
    return [f"{ROOT}/tables/{name}.{suffix}" for suffix in ("csv", "md", "tex")]


def figure_files(name: str) -> list[str]:
    """A figure in its two forms."""
    return [f"{FIGURES}/{name}.{suffix}" for suffix in ("png", "pdf")]


def figure(name: str, title: str, caption: str = "") -> dict[str, str]:
    """The files of a figure, as outputs: png (in the report, under a caption of its name) and pdf."""
    path = f"../report/{caption or name}.rst"
    picture = report(f"{FIGURES}/{name}.png", caption=path, category="Figures", labels={"figure": title})
    return {"png": picture, "pdf": f"{FIGURES}/{name}.pdf"}


def drawn(name: str) -> Any:
    """What a figure of the config shows."""
    settings_of_figure = getattr(SETTINGS.figures, name)
    if settings_of_figure is None:
        raise WorkflowError(f"config: preset {PRESET} has no figures.{name}")
    return settings_of_figure


def figure_settings(name: str) -> Callable[[Wildcards], str]:
    """Params function: what a figure of the config shows."""
    return lambda wildcards: as_json(drawn(name))


def data_of_figure(name: str, split: str) -> Callable[[Wildcards], list[str]]:
    """Input function: the images that a figure shows."""
    return lambda wildcards: [path.format(dataset=drawn(name).dataset) for path in splits(split).values()]


def splits_of_figure(name: str) -> Callable[[Wildcards], str]:
    """Params function: the folder of the splits of a figure's data set."""
    return lambda wildcards: SPLITS.format(dataset=drawn(name).dataset)


def leaf_of_figure(name: str, file: str) -> Callable[[Wildcards], str]:
    """Input function: a file of the run that a figure shows; of the first seed."""

    def path(wildcards: Wildcards) -> str:
        shown = drawn(name)
        prior = leaf_prior(shown.prior, SETTINGS.priors[shown.prior], shown.weight)
        where = {"dataset": shown.dataset, "prior": prior, "lam": format_weight(shown.weight)}
        return f"{LEAF}/{file}".format(seed=SETTINGS.seeds[0], **where)

    return path


def start_of_figure(name: str, file: str) -> Callable[[Wildcards], str]:
    """Input function: a file of the start at the class means and variances that a figure shows."""
    return lambda wildcards: f"{START}/{file}".format(
        dataset=drawn(name).dataset, start="data", seed=SETTINGS.seeds[0]
    )


def fits_of_residuals(wildcards: Wildcards) -> list[str]:
    """Input function: the iterations of each λ of the figure of residuals."""
    shown = drawn("residuals")
    where = {"dataset": shown.dataset, "prior": shown.prior, "seed": SETTINGS.seeds[0]}
    return [
        f"{LEAF}/fit/fixed_point.csv".format(lam=format_weight(weight), **where) for weight in shown.lambdas
    ]


def nfa_of_figure(name: str) -> Callable[[Wildcards], str]:
    """Params function: settings of the latent augmentation as they are for a figure's data set."""
    return lambda wildcards: as_json(SETTINGS.for_dataset(drawn(name).dataset).nfa)


def prior_of_figure(name: str) -> Callable[[Wildcards], str]:
    """Params function: settings of a figure's prior."""
    return lambda wildcards: as_json(SETTINGS.priors[drawn(name).prior])


DRAWN = {name: [name] for name in ("figure1", "figure2", "samples", "residuals", "convergence_map")} | {
    "figure1": ["figure1", "figure1_full"]
}
"""The drawings of each figure of the config."""


def target(name: str) -> list[str]:
    """All that is made for a table (its files, and the figures drawn from it) or a figure."""
    if name in SETTINGS.tables:
        return [
            *table_files(name),
            *(file for figure in FIGURES_OF.get(name, []) for file in figure_files(figure)),
        ]
    return [file for figure in DRAWN[name] for file in figure_files(figure)]


def targets() -> list[str]:
    """Names of all tables and figures of the preset."""
    return [*SETTINGS.tables, *(name for name, figure in SETTINGS.figures if figure is not None)]


def target_of(*names: str, preset: str = PRESET) -> Callable[[Wildcards], list[str]]:
    """Input function of the target of tables and figures, which not every preset has."""

    def files(wildcards: Wildcards) -> list[str]:
        if PRESET != preset:
            raise WorkflowError(f"config: this target is for preset {preset}, not for {PRESET}")
        for name in names:
            if name not in targets():
                kind = "tables" if name.startswith("table") else "figures"
                raise WorkflowError(f"config: preset {PRESET} has no {kind}.{name}")
        return [file for name in names for file in target(name)]

    return files


def table_settings(wildcards: Wildcards) -> str:
    """What stands in a table."""
    return as_json(SETTINGS.tables[wildcards.table])


def table_priors(wildcards: Wildcards) -> str:
    """The priors that a table names."""
    experiments = SETTINGS.tables[wildcards.table].experiments
    names = dict.fromkeys(experiment.prior for experiment in experiments if experiment.prior)
    return json.dumps({name: SETTINGS.priors[name].model_dump(mode="json") for name in names})
