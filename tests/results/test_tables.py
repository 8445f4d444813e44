import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from nfpi.config import BASELINE, Experiment, FixedPointPrior, GradientPrior, Table, resolve
from nfpi.results.records import COLUMNS as METRIC_COLUMNS
from nfpi.results.tables import COLUMNS, METRICS, TableError, accuracy_table, read_reference, read_table
from nfpi.results.markup import to_latex, to_markdown, weight_parts, write_table

PAPER = Path(__file__).parents[1] / "workflow" / "reference" / "paper.csv"
PRIORS = {
    "fpi": FixedPointPrior(),
    "mean_only": FixedPointPrior(fit_variance=False),
    "unit": FixedPointPrior(start="identity"),
}
DIVERGED = "diverged: variance of class 2 at iteration 3"


def leaf(dataset, prior, weight, seed, nf=None, validation=None, cnn=None, status="ok"):
    common = {
        "dataset": dataset,
        "prior": prior,
        "lambda": float(weight),
        "seed": seed,
        "n": 360,
        "status": status,
    }
    run = f"{dataset}/{prior}/lambda={weight}/seed={seed}"
    values = [("flow", "nf_acc", nf), ("flow", "validation_nf_acc", validation), ("resnet18", "cnn_acc", cnn)]
    if status != "ok":
        values = [("flow", "", math.nan)]
    return [
        common | {"stage": stage, "augmentation": "", "metric": metric, "value": value, "run": run}
        for stage, metric, value in values
        if value is not None
    ]


def frame_of(*leaves):
    return pd.DataFrame([row for rows in leaves for row in rows], columns=list(METRIC_COLUMNS)).astype(METRIC_COLUMNS)


def table_of(*experiments):
    return Table(experiments=[Experiment(**experiment) for experiment in experiments])


@pytest.fixture(scope="module")
def reference() -> pd.DataFrame:
    return read_reference(PAPER)


@pytest.fixture(scope="module")
def metrics() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [leaf("cifar10", "baseline", 0, seed, *rng.uniform(70, 80, 3)) for seed in range(3)]
    rows += [leaf("cifar10", "fpi", 300000, seed, *rng.uniform(90, 95, 3)) for seed in range(3)]
    rows += [leaf("cifar10", "fpi", 1000000, seed, *rng.uniform(80, 85, 3)) for seed in (0, 2)]
    rows += [leaf("cifar10", "fpi", 1000000, 1, status=DIVERGED)]
    rows += [leaf("cifar10", "fpi", 3000000, seed, status=DIVERGED) for seed in range(3)]
    rows += [leaf("digits_8x8", "baseline", 0, 0, 94.4, 93.0, 88.0), leaf("digits_8x8", "fpi", 1000, 0, 97.0)]
    return frame_of(*rows)


@pytest.fixture(scope="module")
def table() -> Table:
    return table_of(
        {"dataset": "digits_8x8", "lambdas": [1e3, 0]},
        {"dataset": "cifar10", "lambdas": [3e6, 3e5, 0, 1e6, 1e7, 300000]},
    )


@pytest.fixture(scope="module")
def accuracies(metrics, table, reference) -> pd.DataFrame:
    return accuracy_table(metrics, table, reference, PRIORS)


def row_of(frame, dataset, weight):
    (row,) = frame[(frame["dataset"] == dataset) & (frame["lambda"] == weight)].to_dict("records")
    return row


def test_rows_follow_the_experiments_and_ascend_in_weight(accuracies):
    assert list(accuracies.columns) == list(COLUMNS)
    assert accuracies["dataset"].tolist() == ["digits_8x8"] * 2 + ["cifar10"] * 5
    assert accuracies["lambda"].tolist() == [0, 1e3, 0, 3e5, 1e6, 3e6, 1e7]


def test_mean_and_deviation_are_numpys(accuracies, metrics):
    for stage, metric in (("flow", "nf_acc"), ("resnet18", "cnn_acc")):
        which = (metrics["lambda"] == 3e5) & (metrics["metric"] == metric) & (metrics["stage"] == stage)
        values = metrics[which]["value"].to_numpy()
        row = row_of(accuracies, "cifar10", 3e5)
        assert row[metric] == pytest.approx(np.mean(values), rel=1e-14)
        assert row[f"{metric}_std"] == pytest.approx(np.std(values, ddof=1), rel=1e-12)
    assert row["nf_acc_seeds"] == row["cnn_acc_seeds"] == 3


def test_the_order_of_the_metrics_does_not_matter(metrics, table, reference, accuracies):
    for seed in range(5):
        shuffled = metrics.sample(frac=1, random_state=seed)
        again = accuracy_table(shuffled, table, reference.sample(frac=1, random_state=seed), PRIORS)
        pd.testing.assert_frame_equal(again, accuracies, check_exact=True)


def test_one_seed_has_no_deviation(accuracies):
    row = row_of(accuracies, "digits_8x8", 0)
    assert row["nf_acc"] == 94.4
    assert row["nf_acc_seeds"] == 1
    assert math.isnan(row["nf_acc_std"])


def test_best_is_chosen_on_the_validation_split(reference):
    metrics = frame_of(
        leaf("digits", "fpi", 1, 0, nf=99.0, validation=90.0),
        leaf("digits", "fpi", 2, 0, nf=90.0, validation=99.0),
    )
    frame = accuracy_table(metrics, table_of({"dataset": "digits", "lambdas": [1, 2, 3]}), reference, PRIORS)
    assert frame["best"].tolist() == [False, True, False]


def test_no_validation_no_best(reference):
    metrics = frame_of(leaf("digits", "fpi", 1, 0, nf=99.0))
    frame = accuracy_table(metrics, table_of({"dataset": "digits", "lambdas": [1]}), reference, PRIORS)
    assert not frame["best"].any()


def test_divergence_is_a_status(accuracies, metrics, reference):
    partly, wholly = row_of(accuracies, "cifar10", 1e6), row_of(accuracies, "cifar10", 3e6)
    assert partly["status"] == "diverged in 1 of 3 seeds"
    assert partly["nf_acc_seeds"] == 2
    assert partly["nf_acc"] > 0
    assert wholly["status"] == "diverged in 3 of 3 seeds"
    assert math.isnan(wholly["nf_acc"])
    assert row_of(accuracies, "cifar10", 3e5)["status"] == "ok"
    one_seed = metrics[metrics["seed"] == 1]
    frame = accuracy_table(one_seed, table_of({"dataset": "cifar10", "lambdas": [3e6]}), reference, PRIORS)
    assert frame.loc[0, "status"] == DIVERGED


def test_a_weight_without_a_leaf_is_missing(accuracies):
    row = row_of(accuracies, "cifar10", 1e7)
    assert row["status"] == "missing"
    assert pd.isna(row["nf_acc_seeds"])
    assert math.isnan(row["nf_acc"])


def test_the_papers_numbers_stand_beside(accuracies):
    baseline, fitted = row_of(accuracies, "cifar10", 0), row_of(accuracies, "cifar10", 3e5)
    assert (baseline["paper_nf_acc"], baseline["paper_cnn_acc"]) == (77.31, 62.1)
    assert (fitted["paper_nf_acc"], fitted["paper_cnn_acc"]) == (93.63, 73.03)
    assert fitted["nf_acc_difference"] == fitted["nf_acc"] - 93.63
    assert math.isnan(row_of(accuracies, "cifar10", 1e6)["paper_nf_acc"])
    assert math.isnan(row_of(accuracies, "digits_8x8", 0)["nf_acc_difference"])


@pytest.mark.parametrize(("prior", "expected"), [("fpi", 77.0), ("mean_only", 77.0), ("unit", 55.0)])
def test_zero_is_read_from_the_leaf_of_the_priors_start(reference, prior, expected):
    metrics = frame_of(
        leaf("cifar10", BASELINE["data"], 0, 0, nf=77.0), leaf("cifar10", BASELINE["identity"], 0, 0, nf=55.0)
    )
    experiment = {"dataset": "cifar10", "prior": prior, "lambdas": [0]}
    frame = accuracy_table(metrics, table_of(experiment), reference, PRIORS)
    assert frame.loc[0, "prior"] == prior
    assert frame.loc[0, "nf_acc"] == expected
    assert frame["paper_nf_acc"].notna().tolist() == [prior != "unit"]


def test_an_experiment_without_classifier_has_no_cnn(metrics, reference):
    experiment = {"dataset": "cifar10", "lambdas": [3e5], "classifier": None}
    frame = accuracy_table(metrics, table_of(experiment), reference, PRIORS)
    assert frame[["cnn_acc", "cnn_acc_std", "cnn_acc_seeds", "paper_cnn_acc"]].isna().all(axis=None)
    assert frame["nf_acc"].notna().all()


def test_one_run_has_one_value(metrics, table, reference):
    with pytest.raises(TableError, match="expected one value of validation_nf_acc"):
        accuracy_table(pd.concat([metrics, metrics]), table, reference, PRIORS)


def test_the_reference_may_repeat_itself_but_not_contradict_itself(metrics, table, reference, accuracies):
    twice = accuracy_table(metrics, table, pd.concat([reference, reference]), PRIORS)
    pd.testing.assert_frame_equal(twice, accuracies)
    other = reference.assign(value=reference["value"] + 1)
    with pytest.raises(TableError, match="is both"):
        accuracy_table(metrics, table, pd.concat([reference, other]), PRIORS)


def test_an_unknown_prior_is_refused(metrics, table, reference):
    with pytest.raises(TableError, match="unknown prior 'fpi'"):
        accuracy_table(metrics, table, reference, {})


def test_the_reference_is_complete_and_has_nothing_else(reference):
    assert len(reference) == 2 + 16 + 8
    assert reference["value"].between(0, 100).all()
    assert (reference["source"] != "").all()
    assert reference["metric"].isin(METRICS).all()
    ours = reference[reference["table"] != "table6"]
    assert ours["lambda"].notna().all()
    assert ((ours["lambda"] == 0) == (ours["prior"] == "baseline")).all()
    other = reference[reference["table"] == "table6"]
    assert other["lambda"].isna().all()
    assert (other["prior"] == "").all()


def test_csv_gives_back_the_same_table(accuracies, tmp_path):
    write_table(accuracies, tmp_path, "table2", "Table 2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["table2.csv", "table2.md", "table2.tex"]
    pd.testing.assert_frame_equal(read_table(tmp_path / "table2.csv"), accuracies, check_exact=True)


def test_unknown_cells_stay_empty(accuracies, tmp_path):
    write_table(accuracies, tmp_path, "table2", "Table 2")
    for suffix in ("csv", "md", "tex"):
        text = (tmp_path / f"table2.{suffix}").read_text().lower()
        assert "nan" not in text
        assert "<na>" not in text
        assert "none" not in text
    last = (tmp_path / "table2.csv").read_text().splitlines()[-1]
    assert last == "1,,cifar10,fpi,10000000.0,resnet18,standard,missing,,False" + 30 * ","
    md = [line for line in (tmp_path / "table2.md").read_text().splitlines() if "10⁷" in line]
    assert md == ["| cifar10 | 10⁷ |  |  |  |  |  |  | missing |"]


def test_markdown_is_a_rectangle_with_the_best_row_in_bold(accuracies):
    lines = to_markdown(accuracies, "Table 2").splitlines()
    grid = [line for line in lines if line.startswith("|")]
    assert lines[0] == "**Table 2**"
    assert len({line.count("|") for line in grid}) == 1
    assert len(grid) == 2 + len(accuracies)
    (bold,) = [line for line in grid if "**" in line]
    row = row_of(accuracies, "cifar10", 3e5)
    assert (
        f"**{row['nf_acc']:.1f} ± {row['nf_acc_std']:.1f} (n = 3)** | **93.63** | **{row['nf_acc'] - 93.63:+.1f}**"
        in bold
    )
    assert "**3·10⁵**" in bold
    assert "| digits_8x8 | 0 | 94.4 (n = 1) |" in "\n".join(grid)


def test_latex_is_a_tabular_with_as_many_cells_as_columns(accuracies):
    text = to_latex(accuracies, "Table 2\nand more")
    lines = text.splitlines()
    assert lines[0] == "% Table 2 and more"
    assert lines[-1] == r"\end{tabular}"
    rows = [line for line in lines if line.endswith(r"\\")]
    assert len(rows) == 1 + len(accuracies)
    assert lines[1] == r"\begin{tabular}{lrrrrrrrl}"
    assert {line.count(" & ") for line in rows} == {8}
    assert r"digits\_8x8" in text
    assert r"\textbf{3\(\cdot\)10\textsuperscript{5}}" in text
    assert text.isascii()


def test_special_characters_are_escaped(accuracies):
    odd = accuracies.assign(dataset=r"a_b&c%d|e\f", status="x")
    assert r"a\_b\&c\%d|e\textbackslash{}f" in to_latex(odd, "")
    assert r"a_b&c%d\|e\\f" in to_markdown(odd, "")


def test_the_prior_is_shown_where_there_are_several(metrics, reference):
    experiments = [{"dataset": "cifar10", "prior": prior, "lambdas": [5e5]} for prior in ("fpi", "mean_only")]
    frame = accuracy_table(metrics, table_of(*experiments), reference, PRIORS)
    text = to_markdown(frame, "Table 3")
    assert "| Data set | Prior | λ |" in text
    assert "| cifar10 | mean_only | 5·10⁵ | 93.2 |" in text


def classified(dataset, run, seed, classifier, augmentation, **values):
    prior, _, weight = run.partition("/lambda=")
    common = {
        "dataset": dataset,
        "prior": prior,
        "lambda": float(weight) if weight else math.nan,
        "seed": seed,
        "n": 10,
    }
    common |= {"stage": classifier, "augmentation": augmentation, "status": "ok"}
    run = f"{dataset}/{run}/seed={seed}/{classifier}/augmentation={augmentation}"
    return [common | {"metric": metric, "value": value, "run": run} for metric, value in values.items()]


def test_classifiers_of_real_images_stand_beside_the_papers(reference):
    run, latent = "fpi/lambda=30000000", {"dataset": "imagenet", "lambdas": [3e7], "classifier": "eva02"}
    metrics = frame_of(
        classified(
            "imagenet", "real", 0, "eva02", "standard", top1=80.0, top5=95.0, real_top1=90.0, validation_top1=81.0
        ),
        classified("imagenet", run, 0, "eva02", "nfa", top1=82.0, top5=96.0, real_top1=91.0, validation_top1=83.0),
        leaf("imagenet", "fpi", 30000000, 0, nf=50.0, validation=50.0),
    )
    table = table_of(
        {"label": "SA", "dataset": "imagenet", "prior": None, "classifier": "eva02"},
        {"label": "NFA", "augmentation": "nfa", **latent},
        {"label": "both", "augmentation": "standard+nfa", **latent},
    )
    frame = accuracy_table(metrics, table, reference, PRIORS)
    assert frame["row"].tolist() == ["SA", "NFA", "both"]
    assert frame["real_top1"].tolist()[:2] == [90.0, 91.0]
    assert frame["paper_real_top1"].tolist() == [90.986, 91.031, 91.082]
    assert frame["real_top1_difference"].tolist()[0] == pytest.approx(90.0 - 90.986)
    assert frame["validation"].tolist()[:2] == [81.0, 83.0]
    assert frame["nf_acc"].isna().all()  # what the flow itself reaches is not what this row is about
    assert frame["status"].tolist() == ["ok", "ok", "missing"]
    text = to_markdown(frame, "")
    assert "| NFA | imagenet | 3·10⁷ | 82.0 (n = 1) | 96.0 (n = 1) | 91.0 (n = 1) | 91.031 | -0.0 |" in text


def test_only_the_best_weight_of_an_experiment(reference):
    metrics = frame_of(
        leaf("digits", "baseline", 0, 0, nf=80.0, validation=80.0),
        leaf("digits", "fpi", 1, 0, nf=99.0, validation=90.0),
        leaf("digits", "fpi", 2, 0, nf=90.0, validation=99.0),
    )
    experiments = [Experiment(dataset="digits", lambdas=[0]), Experiment(dataset="digits", lambdas=[1, 2])]
    frame = accuracy_table(metrics, Table(best_only=True, experiments=experiments), reference, PRIORS)
    assert frame["lambda"].tolist() == [0, 2]
    text = to_markdown(frame, "")
    assert "**" not in text
    assert "of those that were tried" in text


def test_a_gradient_prior_has_a_zero_of_its_own(reference):
    metrics = frame_of(leaf("digits", "baseline", 0, 0, nf=70.0), leaf("digits", "gmm", 0, 0, nf=80.0))
    priors = {"gmm": GradientPrior(method="gradient_descent", every="step")}
    frame = accuracy_table(metrics, table_of({"dataset": "digits", "prior": "gmm", "lambdas": [0]}), reference, priors)
    assert frame["nf_acc"].tolist() == [80.0]


def test_cited_work_has_a_row_with_numbers_only_where_they_are_known(reference):
    metrics = frame_of(leaf("digits", "fpi", 1, 0, nf=99.0))
    known = pd.concat([reference, reference[:1].assign(row="A (2020)", prior="", metric="nf_acc", value=88.0)])
    known.loc[known["row"] == "A (2020)", "lambda"] = math.nan
    experiments = [Experiment(dataset="digits", lambdas=[1])]
    table = Table(experiments=experiments, literature=["A (2020)", "B (2021)"])
    frame = accuracy_table(metrics, table, known, PRIORS)
    assert frame["status"].tolist() == ["ok", "cited", "cited"]
    assert frame["paper_nf_acc"].tolist()[1] == 88.0
    text = to_markdown(frame, "")
    assert "| B (2021) |  |  |  |  |" in text
    assert "| A (2020) | cifar10 |  |  | 88 |" in text
    assert "cited" in text.splitlines()[-1]


def test_two_cited_works_may_have_different_numbers(reference):
    cited = reference[:1].assign(prior="", metric="nf_acc")
    known = pd.concat([reference, cited.assign(row="A", value=90.0), cited.assign(row="B", value=91.0)])
    table = Table(experiments=[Experiment(dataset="digits", lambdas=[1])], literature=["A", "B"])
    frame = accuracy_table(frame_of(leaf("digits", "fpi", 1, 0, nf=99.0)), table, known, PRIORS)
    assert frame["paper_nf_acc"].tolist()[1:] == [90.0, 91.0]


def test_every_number_of_the_paper_stands_in_its_cells_and_nowhere_else(reference):
    raw = yaml.safe_load((PAPER.parents[2] / "config.yaml").read_text())
    _, _, config = resolve(raw, {"preset": "paper"})
    empty = frame_of()
    shown = {}
    for name, table in config.tables.items():
        frame = accuracy_table(empty, table, reference, config.priors)
        for row in frame.to_dict("records"):
            for metric in METRICS:
                if not math.isnan(row[f"paper_{metric}"]):
                    shown[name, row["row"], row["dataset"], row["lambda"], metric] = row[f"paper_{metric}"]
    titles = {"#1": "#1 w/o KLD (λ = 0)", "#2": "#2 KLD on μ only", "#3": "#3 KLD on Σ only", "#4": "#4 KLD on μ and Σ"}
    for row in reference.to_dict("records"):
        label = titles.get(row["row"], row["row"])
        label = {"NFA+SA": "NFA + SA"}.get(label, label)
        if (row["row"], row["dataset"]) == ("NFπ", "cifar100"):
            label = "NFπ, μ only"
        cells = {
            value
            for (table, name, dataset, _, metric), value in shown.items()
            if (table, name, dataset, metric) == (row["table"], label, row["dataset"], row["metric"])
        }
        assert cells == {row["value"]}, row
    # Tables 1 and 4 show rows of Table 3 as well, Table 2 the two λ that it shares with it
    by_table = {name: sum(table == name for table, *_ in shown) for name in config.tables}
    assert by_table == {"table1": 4, "table2": 4, "table3": 16, "table4": 4, "table5": 0, "table6": 8}


def test_another_frame_is_refused(accuracies, tmp_path):
    with pytest.raises(TableError, match="column nf_acc is missing"):
        write_table(accuracies.drop(columns="nf_acc"), tmp_path, "table2", "Table 2")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("weight", "parts"),
    [
        (0, ("0", 0)),
        (500, ("500", 0)),
        (0.5, ("0.5", 0)),
        (1e3, ("1", 3)),
        (7.5e6, ("7.5", 6)),
        (2e-5, ("2", -5)),
    ],
)
def test_weights_for_people(weight, parts):
    assert weight_parts(weight) == parts
    assert float(f"{parts[0]}e{parts[1]}") == weight
