"""Metrics over seeds beside the paper's numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from nfpi.config.base import Settings
from nfpi.config.experiments import TableSettings
from nfpi.config.priors import PRIORS
from nfpi.config.resolution import resolve
from nfpi.results.recorded.csv_files import CsvError, write_csv
from nfpi.results.tables.building import TableError, accuracy_table, read_table
from nfpi.results.tables.columns import list_metrics, table_columns
from nfpi.results.tables.layout import to_markdown
from nfpi.results.tables.rows import find_best_flow, list_table_rows
from nfpi.runs import BASELINE, Run

ROOT = Path(__file__).parents[3]
DIVERGED = "diverged: variance of class 2 at iteration 3"
BOTH = TableSettings(metrics=["nf_acc", "cnn_acc"])
NF_ACC = TableSettings(metrics=["nf_acc"])


def flow_run(dataset="cifar10", prior="fpi", weight=3e5, seed=0, flow="mef") -> Run:
    return Run(dataset=dataset, flow=flow, prior=prior, weight=float(weight), seed=seed)


def taught(run: Run, classifier="resnet18") -> Run:
    return replace(run, classifier=classifier)


def test_references_and_measured_images_are_columns_beside_the_others(
    make_rows, make_metric_rows, make_frame, make_config
):
    """The number of generated images is not that of the test images."""
    config = make_config({"dataset": "cifar10", "lambdas": [0, 3e5]}, metrics=["nf_acc", "real_acc", "gan_test"])
    table, rows = config.tables["t"], list_table_rows(config, "t")
    found = []
    for index, row in enumerate(rows):
        (flow,), (classifier,), (measured,) = row.flow_runs, row.classifier_runs, row.sample_runs
        found += [make_metric_rows(flow, nf_acc=70.0 + index, validation_nf_acc=70.0, ece=1.0)]
        found += [make_metric_rows(classifier, cnn_acc=60.0)]
        found += [[cell | {"n": 5000} for cell in make_metric_rows(measured, gan_test=90.0 + index)]]
    found += [make_metric_rows(rows[0].reference_runs[0], real_acc=81.0, validation_real_acc=80.0)]
    frame = accuracy_table(make_frame(*found), table, pd.DataFrame(columns=["row", "dataset"]), rows)
    assert frame["real_acc"].tolist() == [81, 81]
    assert frame["gan_test"].tolist() == [90, 91]
    assert frame["images"].tolist() == [360, 360]
    widths = [frame[f"{name}_high"][0] - frame[f"{name}_low"][0] for name in ("real_acc", "gan_test")]
    assert widths[0] > 3 * widths[1]
    assert (frame["real_acc_test"] == "").all()


@pytest.fixture(scope="module")
def metrics(make_metric_rows, make_frame) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    runs = []

    def add(run, nf_acc, validation_nf_acc, cnn_acc):
        runs.append(make_metric_rows(run, nf_acc=nf_acc, validation_nf_acc=validation_nf_acc))
        runs.append(make_metric_rows(taught(run), cnn_acc=cnn_acc))

    for prior, weight, seeds, low in (
        *(("baseline", 0, (0, 1, 2), 70), ("fpi", 3e5, (0, 1, 2), 90), ("fpi", 1e6, (0, 2), 80)),
    ):
        for seed in seeds:
            add(flow_run(prior=prior, weight=weight, seed=seed), *rng.uniform(low, low + 5, 3))
    for run in (flow_run(weight=1e6, seed=1), *(flow_run(weight=3e6, seed=seed) for seed in range(3))):
        runs += [make_metric_rows(run, DIVERGED), make_metric_rows(taught(run), DIVERGED)]
    add(flow_run("digits_8x8", "baseline", 0), 94.4, 93.0, 88.0)
    runs.append(make_metric_rows(flow_run("digits_8x8", "fpi", 1000), nf_acc=97.0))
    return make_frame(*runs)


@pytest.fixture
def tabulate(make_rows, make_frame, reference) -> Callable[..., pd.DataFrame]:
    """Make the table of an experiment of data set `digits`, changed as wished, from runs' rows of metrics."""

    def make(*runs, table=NF_ACC, seeds=(0,), **experiment):
        rows = make_rows({"dataset": "digits"} | experiment, seeds=seeds)
        return accuracy_table(make_frame(*runs), table, reference, rows)

    return make


@pytest.fixture(scope="module")
def rows(make_rows):
    return make_rows(
        {"dataset": "digits_8x8", "lambdas": [1e3, 0]},
        {"dataset": "cifar10", "lambdas": [3e6, 3e5, 0, 1e6, 1e7, 300000]},
        seeds=(0, 1, 2),
    )


@pytest.fixture(scope="module")
def table(metrics, reference, rows) -> pd.DataFrame:
    return accuracy_table(metrics, BOTH, reference, rows)


def row_of(frame, dataset, weight):
    (row,) = frame[(frame["dataset"] == dataset) & (frame["lambda"] == weight)].to_dict("records")
    return row


def test_rows_follow_the_experiments_and_ascend_in_weight(table):
    assert list(table.columns) == list(table_columns(BOTH.metrics))
    assert table["dataset"].tolist() == ["digits_8x8"] * 2 + ["cifar10"] * 5
    assert table["lambda"].tolist() == [0, 1e3, 0, 3e5, 1e6, 3e6, 1e7]
    assert set(table["flow"]) == {"mef"}


def test_a_table_shows_the_metrics_that_it_names(metrics, reference, rows):
    frame = accuracy_table(metrics, TableSettings(metrics=["cnn_acc", "validation_nf_acc"]), reference, rows)
    assert list_metrics(frame.columns) == ["cnn_acc", "validation_nf_acc"]
    assert frame["validation_nf_acc"].equals(frame["validation"].rename("validation_nf_acc"))


def test_mean_and_deviation_are_numpys(table, metrics):
    row = row_of(table, "cifar10", 3e5)
    for metric in BOTH.metrics:
        values = metrics[(metrics["lambda"] == 3e5) & (metrics["metric"] == metric)]["value"].to_numpy()
        assert row[metric] == pytest.approx(np.mean(values), rel=1e-14)
        assert row[f"{metric}_std"] == pytest.approx(np.std(values, ddof=1), rel=1e-12)
    assert row["nf_acc_seeds"] == row["cnn_acc_seeds"] == 3


def test_the_interval_is_students_over_seeds_and_wilsons_of_one_accuracy(table, metrics):
    row = row_of(table, "cifar10", 3e5)
    values = metrics[(metrics["lambda"] == 3e5) & (metrics["metric"] == "nf_acc")]["value"].to_numpy()
    expected = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    assert (row["nf_acc_low"], row["nf_acc_high"]) == pytest.approx((expected[0], min(expected[1], 100)))
    row = row_of(table, "digits_8x8", 0)
    proportion = stats.binomtest(340, 360).proportion_ci(method="wilson")  # 94.4 % of 360
    assert (row["nf_acc_low"], row["nf_acc_high"]) == pytest.approx((100 * proportion.low, 100 * proportion.high), 1e-3)
    assert row["images"] == 360


@pytest.mark.parametrize(
    ("name", "values", "bounds"),
    [
        ("validation_nf_acc", (95.0, 99.9), (None, 100)),
        ("ece", (0.1, 4.0), (0, None)),
        ("seconds_per_epoch", (0.1, 4.0), (0, None)),
        ("bits_per_dim", (0.1, 4.0), (None, None)),
        ("nf_acc", (-30.0, 120.0), (None, None)),  # not a share of anything
    ],
)
def test_an_interval_ends_where_values_do(make_metric_rows, tabulate, name, values, bounds):
    runs = [make_metric_rows(flow_run("digits", weight=1, seed=seed), **{name: values[seed]}) for seed in (0, 1)]
    frame = tabulate(*runs, table=TableSettings(metrics=[name]), seeds=(0, 1), lambdas=[1], classifier=None)
    (row,) = frame.to_dict("records")
    expected = stats.t.interval(0.95, 1, np.mean(values), stats.sem(values))
    for bound, limit, unlimited in zip(("low", "high"), bounds, expected, strict=True):
        assert row[f"{name}_{bound}"] == pytest.approx(unlimited if limit is None else limit)


def test_one_value_that_is_no_share_of_the_images_has_no_interval(make_metric_rows, tabulate):
    run = flow_run("digits", weight=1)
    of_both = TableSettings(metrics=["ece", "nf_acc"])
    (row,) = tabulate(make_metric_rows(run, ece=3.0, nf_acc=100.0), table=of_both, lambdas=[1]).to_dict("records")
    assert math.isnan(row["ece_low"])
    assert math.isnan(row["ece_high"])
    assert 98 < row["nf_acc_low"] < row["nf_acc_high"] == 100
    for impossible in (-20.0, 250.0):
        (row,) = tabulate(make_metric_rows(run, nf_acc=impossible), lambdas=[1]).to_dict("records")
        assert row["nf_acc"] == impossible
        assert math.isnan(row["nf_acc_low"])


def test_the_order_of_the_metrics_does_not_matter(metrics, reference, rows, table):
    for seed in range(5):
        shuffled = metrics.sample(frac=1, random_state=seed)
        again = accuracy_table(shuffled, BOTH, reference.sample(frac=1, random_state=seed), rows)
        pd.testing.assert_frame_equal(again, table, check_exact=True)


def test_one_seed_has_no_deviation(table):
    row = row_of(table, "digits_8x8", 0)
    assert row["nf_acc"] == 94.4
    assert row["nf_acc_seeds"] == 1
    assert math.isnan(row["nf_acc_std"])


def test_no_validation_no_best(make_metric_rows, tabulate):
    table = TableSettings(metrics=["nf_acc"], best_only=True)
    frame = tabulate(make_metric_rows(flow_run("digits", weight=1), nf_acc=99.0), table=table, lambdas=[1, 2])
    assert frame["best"].tolist() == [False, False]


def test_only_the_best_weight_of_each_experiment(make_metric_rows, make_frame, reference, make_rows):
    metrics = make_frame(
        make_metric_rows(flow_run("digits", "baseline", 0), nf_acc=80.0, validation_nf_acc=80.0),
        make_metric_rows(flow_run("digits", weight=1), nf_acc=99.0, validation_nf_acc=90.0),
        make_metric_rows(flow_run("digits", weight=2), nf_acc=90.0, validation_nf_acc=99.0),
    )
    rows = make_rows({"dataset": "digits", "lambdas": [0]}, {"dataset": "digits", "lambdas": [1, 2]})
    frame = accuracy_table(metrics, TableSettings(best_only=True), reference, rows)
    assert frame["lambda"].tolist() == [0, 2]


def test_divergence_is_a_status(table, metrics, reference, make_rows):
    partly, wholly = row_of(table, "cifar10", 1e6), row_of(table, "cifar10", 3e6)
    assert partly["status"] == "1 of 3 seeds diverged"
    assert partly["nf_acc_seeds"] == 2
    assert partly["nf_acc"] > 0
    assert wholly["status"] == "3 of 3 seeds diverged"
    assert math.isnan(wholly["nf_acc"])
    assert row_of(table, "cifar10", 3e5)["status"] == "ok"
    rows = make_rows({"dataset": "cifar10", "lambdas": [3e6]}, seeds=(1,))
    assert accuracy_table(metrics, BOTH, reference, rows).loc[0, "status"] == DIVERGED


def test_a_weight_without_a_run_is_missing(table):
    row = row_of(table, "cifar10", 1e7)
    assert row["status"] == "missing"
    assert pd.isna(row["nf_acc_seeds"])
    assert math.isnan(row["nf_acc"])


def test_the_papers_numbers_stand_beside(table):
    baseline, fitted = row_of(table, "cifar10", 0), row_of(table, "cifar10", 3e5)
    assert (baseline["paper_nf_acc"], baseline["paper_cnn_acc"]) == (77.31, 62.1)
    assert (fitted["paper_nf_acc"], fitted["paper_cnn_acc"]) == (93.63, 73.03)
    assert fitted["nf_acc_difference"] == fitted["nf_acc"] - 93.63
    assert math.isnan(row_of(table, "cifar10", 1e6)["paper_nf_acc"])
    assert math.isnan(row_of(table, "digits_8x8", 0)["nf_acc_difference"])


def test_the_papers_numbers_are_those_of_its_backbone(make_metric_rows, make_frame, reference, make_rows):
    runs = [flow_run(flow=flow) for flow in ("mef", "glow")]
    metrics = make_frame(*(make_metric_rows(run, nf_acc=90.0 + index) for index, run in enumerate(runs)))
    rows = make_rows(*({"dataset": "cifar10", "flow": flow, "lambdas": [3e5]} for flow in ("mef", "glow")))
    frame = accuracy_table(metrics, NF_ACC, reference, rows)
    assert frame["flow"].tolist() == ["mef", "glow"]
    assert frame["nf_acc"].tolist() == [90.0, 91.0]
    assert frame["paper_nf_acc"].notna().tolist() == [True, False]


@pytest.mark.parametrize(("prior", "expected"), [("fpi", 77.0), ("mean_only", 77.0), ("unit", 55.0), ("gmm", 80.0)])
def test_zero_is_read_from_the_run_of_the_priors_start(make_metric_rows, tabulate, prior, expected):
    runs = [
        make_metric_rows(flow_run(prior=BASELINE["data"], weight=0), nf_acc=77.0),
        make_metric_rows(flow_run(prior=BASELINE["identity"], weight=0), nf_acc=55.0),
        make_metric_rows(flow_run(prior="gmm", weight=0), nf_acc=80.0),  # a learned prior has its own
    ]
    frame = tabulate(*runs, dataset="cifar10", prior=prior, lambdas=[0])
    assert frame.loc[0, "prior"] == prior
    assert frame.loc[0, "nf_acc"] == expected
    assert frame["paper_nf_acc"].notna().tolist() == [prior in ("fpi", "mean_only")]


def test_a_prior_without_a_weight_shows_none(
    monkeypatch, make_metric_rows, make_frame, reference, make_config, tmp_path
):
    monkeypatch.setattr(PRIORS, "_variants", dict(PRIORS._variants))
    PRIORS.register("simplex", Settings, uses_weight=False, learned=False)
    config = make_config({"dataset": "digits", "lambdas": [0]})
    blocks = {name: block.model_dump() for name, block in config.priors.items()} | {"mine": {"method": "simplex"}}
    tables = {"t": {"experiments": [{"dataset": "digits", "prior": "mine", "classifier": None}]}}
    config = type(config).model_validate(config.model_dump() | {"priors": blocks, "tables": tables})
    rows = list_table_rows(config, "t")
    assert [run.folder for run in rows[0].runs] == ["digits/mef/mine/lambda=0/seed=0"]
    metrics = make_frame(make_metric_rows(rows[0].runs[0], nf_acc=80.0, validation_nf_acc=79.0))
    frame = accuracy_table(metrics, NF_ACC, reference, rows)
    assert frame["nf_acc"].tolist() == [80.0]
    assert frame["lambda"].isna().all()
    (tmp_path / rows[0].runs[0].folder / "model").mkdir(parents=True)
    assert find_best_flow(tmp_path, config, {"t": frame}) == rows[0].runs[0]


def test_an_experiment_without_classifier_has_no_cnn(metrics, reference, make_rows):
    rows = make_rows({"dataset": "cifar10", "lambdas": [3e5], "classifier": None})
    frame = accuracy_table(metrics, BOTH, reference, rows)
    assert frame[["cnn_acc", "cnn_acc_std", "cnn_acc_seeds", "paper_cnn_acc"]].isna().all(axis=None)
    assert frame["nf_acc"].notna().all()


def test_a_metric_is_that_of_the_run_that_measured_it(make_metric_rows, tabulate):
    run = flow_run("digits", weight=1)
    of_flow = make_metric_rows(run, nf_acc=99.0, ece=3.0, hours=0.5)
    of_classifier = make_metric_rows(taught(run), cnn_acc=90.0, cnn_ece=5.0, temperature=0.9)
    names = ["ece", "cnn_ece", "temperature", "hours"]
    frame = tabulate(of_flow, of_classifier, table=TableSettings(metrics=names), lambdas=[1])
    assert frame.loc[0, names].tolist() == [3.0, 5.0, 0.9, 0.5]


def test_one_run_has_one_value(metrics, reference, rows):
    with pytest.raises(TableError, match="nf_acc"):
        accuracy_table(pd.concat([metrics, metrics]), BOTH, reference, rows)


def test_the_reference_may_repeat_itself_but_not_contradict_itself(metrics, reference, rows, table):
    twice = accuracy_table(metrics, BOTH, pd.concat([reference, reference]), rows)
    pd.testing.assert_frame_equal(twice, table)
    other = reference.assign(value=reference["value"] + 1)
    with pytest.raises(TableError, match="is both"):
        accuracy_table(metrics, BOTH, pd.concat([reference, other]), rows)


@pytest.mark.parametrize(("lambdas", "value"), [([], 90.0), ([0], None)])
def test_the_reference_may_leave_out_the_lambda_of_a_prior_without_one(
    make_metric_rows, make_frame, reference, make_rows, lambdas, value
):
    rows = [
        row.model_copy(update={"weight": lambdas[0] if lambdas else None})
        for row in make_rows({"dataset": "digits", "prior": "gmm", "lambdas": [0]})
    ]
    known = {"dataset": "digits", "flow": "mef", "prior": "gmm", "lambda": math.nan, "classifier": "", "value": 90.0}
    added = pd.DataFrame([known | {"table": "", "row": "", "augmentation": "", "metric": "nf_acc", "source": ""}])
    metrics = make_frame(make_metric_rows(rows[0].flow_runs[0], nf_acc=80.0))
    known = pd.concat([reference, added[reference.columns]])
    if value is None:
        with pytest.raises(TableError, match=r"nf_acc of digits/mef/gmm/"):
            accuracy_table(metrics, BOTH, known, rows)
    else:
        assert accuracy_table(metrics, BOTH, known, rows)["paper_nf_acc"].tolist() == [value]


def test_classifiers_of_real_images_stand_beside_the_papers(make_metric_rows, make_frame, reference, make_rows):
    alone = Run(dataset="imagenet", seed=0, classifier="eva02", augmentation="standard")
    flow = flow_run("imagenet", weight=3e7)
    metrics = make_frame(
        make_metric_rows(alone, top1=80.0, top5=95.0, real_top1=90.0, validation_top1=81.0),
        make_metric_rows(
            replace(flow, classifier="eva02", augmentation="nfa"),
            **{"top1": 82.0, "top5": 96.0, "real_top1": 91.0, "validation_top1": 83.0},
        ),
        make_metric_rows(flow, nf_acc=50.0, validation_nf_acc=50.0),
    )
    latent = {"dataset": "imagenet", "lambdas": [3e7], "classifier": "eva02"}
    rows = make_rows(
        {"label": "SA", "dataset": "imagenet", "prior": None, "classifier": "eva02"},
        {"label": "NFA", "augmentation": "nfa", **latent},
        {"label": "both", "augmentation": "standard+nfa", **latent},
    )
    frame = accuracy_table(metrics, TableSettings(metrics=["top1", "top5", "real_top1", "nf_acc"]), reference, rows)
    assert frame["row"].tolist() == ["SA", "NFA", "both"]
    assert frame["real_top1"].tolist()[:2] == [90.0, 91.0]
    assert frame["paper_real_top1"].tolist() == [90.986, 91.031, 91.082]
    assert frame["real_top1_difference"].tolist()[0] == pytest.approx(90.0 - 90.986)
    assert frame["validation"].tolist()[:2] == [81.0, 83.0]
    assert frame["nf_acc"].isna().all()  # what the flow itself reaches is not what this row is about
    assert frame["status"].tolist() == ["ok", "ok", "missing"]


def test_cited_work_has_a_row_with_numbers_only_where_they_are_known(
    make_metric_rows, make_frame, reference, make_rows
):
    cited = reference[:1].assign(prior="", metric="nf_acc")
    known = pd.concat([reference, cited.assign(row="A", value=90.0), cited.assign(row="B", value=91.0)])
    table = TableSettings(metrics=["nf_acc"], literature=["A", "B", "C"])
    metrics = make_frame(make_metric_rows(flow_run("digits", weight=1), nf_acc=99.0))
    frame = accuracy_table(metrics, table, known, make_rows({"dataset": "digits", "lambdas": [1]}))
    assert frame["status"].tolist() == ["ok", "cited", "cited", "cited"]
    assert frame["experiment"].tolist() == [0, 1, 2, 3]
    assert frame["paper_nf_acc"].tolist()[1:3] == [90.0, 91.0]
    assert math.isnan(frame["paper_nf_acc"].tolist()[3])


def test_the_reference_is_complete_and_has_nothing_else(reference):
    released, reference = (reference[(reference["table"] == "released") == chosen] for chosen in (True, False))
    assert len(released) == 16
    assert len(reference) == 2 + 16 + 8 + 8  # eight numbers of Table 3 stand beside rows of fewer images too
    assert reference["value"].between(0, 100).all()
    ours = reference[reference["table"] != "table6"]
    assert ((ours["lambda"] == 0) == (ours["prior"] == "baseline")).all()


def test_the_numbers_of_table_3_stand_beside_released_checkpoints_too(reference, make_frame):
    config = resolve(ROOT / "config.yaml", ROOT / "presets", {"preset": "released"}).config
    shown = {}
    for name, table in config.tables.items():
        frame = accuracy_table(make_frame(), table, reference, list_table_rows(config, name))
        for metric in {"nf_acc", "cnn_acc"} & {*table.metrics}:
            cells = zip(frame["dataset"], frame["flow"].str[-1], frame[f"paper_{metric}"], strict=True)
            shown |= {(dataset, f"#{number}", metric): value for dataset, number, value in cells}
    of_table_3 = reference[(reference["table"] == "table3") & reference["dataset"].isin(["cifar10", "cifar100"])]
    assert shown == {(row.dataset, row.row, row.metric): row.value for row in of_table_3.itertuples()}


def test_every_number_of_the_paper_stands_in_its_cells_and_nowhere_else(reference, make_frame):
    config = resolve(ROOT / "config.yaml", ROOT / "presets", {"preset": "paper"}).config
    shown = {}
    for name, table in config.tables.items():
        frame = accuracy_table(make_frame(), table, reference, list_table_rows(config, name))
        for row in frame.to_dict("records"):
            for metric in table.metrics:
                if not math.isnan(row[f"paper_{metric}"]):
                    where = (name, row["row"], row["dataset"], row["flow"], row["lambda"], metric)
                    shown[where] = row[f"paper_{metric}"]
    fewer = {"cifar10_500": 500, "cifar100_50": 50}
    titles = {"#1": "#1 w/o KLD (λ = 0)", "#2": "#2 KLD on μ only", "#3": "#3 KLD on Σ only", "#4": "#4 KLD on μ and Σ"}
    for row in reference[reference["table"] != "released"].to_dict("records"):
        label = titles.get(row["row"], row["row"])
        label = {"NFA+SA": "NFA + SA"}.get(label, label)
        if (row["row"], row["dataset"]) == ("NFπ", "cifar100"):
            label = "NFπ, μ only"
        if row["dataset"] in fewer:
            label = f"{row['row']}, {fewer[row['dataset']]} images a class"
        cells = {
            value
            for (table, name, dataset, _, _, metric), value in shown.items()
            if (table, name, dataset, metric) == (row["table"], label, row["dataset"], row["metric"])
        }
        assert cells == {row["value"]}, row
    # Tables 1 and 4 show rows of Table 3 as well, Table 2 the two λ that it shares with it
    by_table = {name: sum(table == name for table, *_ in shown) for name in config.tables}
    of_the_paper = {"table1": 4, "table2": 4, "table3": 24, "table4": 4, "table5": 0, "table6": 8}
    assert {name: by_table[name] for name in of_the_paper} == of_the_paper
    others = {flow for table, _, _, flow, _, _ in shown if table not in of_the_paper}
    assert others <= {"mef"}


def test_csv_gives_back_the_same_table_whatever_it_shows(metrics, reference, rows, tmp_path):
    for names in (["nf_acc"], ["cnn_acc", "bits_per_dim", "cnn_ece"]):
        frame = accuracy_table(metrics, TableSettings(metrics=names), reference, rows)
        write_csv(frame, tmp_path / "table.csv")
        pd.testing.assert_frame_equal(read_table(tmp_path / "table.csv"), frame, check_exact=True)
    write_csv(frame.drop(columns="cnn_acc_std"), tmp_path / "table.csv")
    with pytest.raises(CsvError, match="expected column cnn_acc_std"):
        read_table(tmp_path / "table.csv")


# ---- the choice of λ -----------------------------------------------------------------------------------------


def test_weights_are_chosen_by_the_metric_that_the_table_names(make_metric_rows, tabulate):
    runs = []
    for weight, nf_acc, cnn_acc, bits in ((1, 99.0, 80.0, 3.0), (2, 95.0, 85.0, 2.0), (3, 90.0, 70.0, 1.0)):
        run = flow_run("digits", weight=weight)
        runs.append(make_metric_rows(run, nf_acc=50.0, validation_nf_acc=nf_acc, validation_bits_per_dim=bits))
        runs.append(make_metric_rows(taught(run), cnn_acc=100.0 - cnn_acc, validation_cnn_acc=cnn_acc))
    for best_by, chosen, value in ((None, 1, 99.0), ("cnn_acc", 2, 85.0), ("bits_per_dim", 3, 1.0)):
        table = TableSettings(best_by=best_by, best_only=True)
        (row,) = tabulate(*runs, table=table, lambdas=[1, 2, 3]).to_dict("records")
        assert (row["lambda"], row["validation"], row["candidates"]) == (chosen, value, 3)
        assert row["chosen_by"] == f"validation_{best_by or 'nf_acc'}"


def test_the_test_split_has_no_part_in_the_choice(make_metric_rows, tabulate):
    def chosen(*accuracies):
        runs = [
            make_metric_rows(flow_run("digits", weight=weight), nf_acc=value, validation_nf_acc=90.0 + weight)
            for weight, value in enumerate(accuracies, start=1)
        ]
        return tabulate(*runs, lambdas=[1, 2])["best"].tolist()

    assert chosen(1.0, 99.0) == chosen(99.0, 1.0) == [False, True]


def test_a_choice_without_validation_values_is_refused(make_metric_rows, tabulate):
    runs = [make_metric_rows(flow_run("digits", weight=w), nf_acc=90.0, validation_nf_acc=90.0) for w in (1, 2)]
    with pytest.raises(TableError, match=r"lambda=1/.*validation_ece"):
        tabulate(*runs, table=TableSettings(best_by="ece"), lambdas=[1, 2])


@pytest.mark.parametrize(("lost", "best"), [((), [False, True]), ((2, 1), [True, False]), ((2,), [False, True])])
def test_a_weight_that_diverged_in_most_seeds_is_not_chosen(make_metric_rows, tabulate, lost, best):
    runs = []
    for seed in range(3):
        runs.append(make_metric_rows(flow_run("digits", weight=1, seed=seed), nf_acc=90.0, validation_nf_acc=90.0))
        status = DIVERGED if seed in lost else "ok"
        runs.append(
            make_metric_rows(flow_run("digits", weight=2, seed=seed), status, nf_acc=95.0, validation_nf_acc=95.0)
        )
    frame = tabulate(*runs, seeds=(0, 1, 2), lambdas=[1, 2])
    assert frame["best"].tolist() == best
    assert frame["validation"].tolist() == [90.0, 95.0]
    assert frame["status"].tolist() == ["ok", f"{len(lost)} of 3 seeds diverged" if lost else "ok"]


def test_intervals_and_notes_consider_overlapping_splits(metrics, reference, rows):
    tables = [
        accuracy_table(metrics, NF_ACC, reference, [row.model_copy(update={"split_ratio": ratio}) for row in rows])
        for ratio in (0.0, 0.25)
    ]
    before, after = (row_of(table, "cifar10", 3e5) for table in tables)
    widths = [row["nf_acc"] - row["nf_acc_low"] for row in (before, after)]  # the upper bound is limited to 100 %
    assert widths[1] / widths[0] == pytest.approx((1 + 3 / 4) ** 0.5)
    assert (after["split_ratio"], after["nf_acc_std"]) == (0.25, before["nf_acc_std"])
    assert ["Nadeau" in to_markdown(table, "") for table in tables] == [False, True]


def test_a_table_has_the_mismatch_where_a_flow_has_it(make_metric_rows, tabulate, tmp_path):
    """Its notes need it, whether or not the table shows this metric."""
    experiment = {"dataset": "cifar10", "lambdas": [0, 3e5], "seeds": (0, 1)}
    runs = [make_metric_rows(flow_run(prior="baseline", weight=0), nf_acc=70.0)]
    assert "mismatch" not in tabulate(*runs, table=BOTH, **experiment)
    runs += [make_metric_rows(flow_run(seed=seed), nf_acc=90.0, mismatch=1.0 + seed) for seed in (0, 1)]
    frame = tabulate(*runs, table=BOTH, **experiment)
    assert frame["mismatch"].tolist() == pytest.approx([math.nan, 1.5], nan_ok=True)
    assert list_metrics(frame.columns) == BOTH.metrics
    write_csv(frame, tmp_path / "table.csv")
    assert "λ = 3·10⁵ (1.50)" in to_markdown(read_table(tmp_path / "table.csv"), "")


@pytest.mark.parametrize(("images", "is_few"), [(4, True), (99, True), (100, False)])
def test_a_choice_on_few_validation_images_is_noted(make_metric_rows, tabulate, tmp_path, images, is_few):
    runs = [make_metric_rows(flow_run("digits", weight=w), nf_acc=90.0, validation_nf_acc=90.0 + w) for w in (1, 2)]
    for row in (row for rows in runs for row in rows if row["metric"] == "validation_nf_acc"):
        row["n"] = images
    frame = tabulate(*runs, table=BOTH, lambdas=[1, 2])
    assert frame["images"].tolist() == [360, 360]
    write_csv(frame, tmp_path / "table.csv")
    assert (f"{images} validation images" in to_markdown(read_table(tmp_path / "table.csv"), "")) == is_few
    assert "validation_images" not in tabulate(runs[0], table=BOTH, lambdas=[1, 2])  # nothing was chosen
