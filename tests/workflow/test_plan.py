"""Where things lie, as rules and their functions ask for it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from nfpi.runs import CANDIDATE, FLOW_RUN, SPLITS
from nfpi.stages.evaluate import Evaluate
from nfpi.stages.prepare_data import PrepareData
from nfpi.stages.train_flow import StartFlow, TrainFlow

from .conftest import make_plan

RUN = {"dataset": "digits", "flow": "mef", "prior": "fpi", "weight": "1000", "seed": "0"}
FOLDER = "results/demo/digits/mef/fpi/lambda=1000/seed=0"


def test_a_template_keeps_its_wildcards_until_they_are_filled() -> None:
    plan = make_plan()
    assert plan.fill_path(FLOW_RUN) == f"results/demo/{FLOW_RUN}"
    assert plan.fill_path(FLOW_RUN, RUN) == FOLDER
    assert (
        plan.fill_path(CANDIDATE, RUN, classifier="resnet18", temperature="0.7") == f"{FOLDER}/resnet18/temperature=0.7"
    )
    assert plan.fill_path("tables") == "results/demo/tables"


def test_results_lie_below_the_preset_and_downloads_beside_it() -> None:
    plan = make_plan("cifar10_small", results="/some/where")
    assert plan.fill_path(SPLITS, dataset="cifar10", splits="splits") == "/some/where/cifar10_small/cifar10/splits"
    assert plan.downloads == "/some/where/downloads"


@pytest.mark.parametrize("stage", [StartFlow, TrainFlow, Evaluate, PrepareData])
def test_outputs_of_a_rule_are_those_that_its_stage_declares(stage) -> None:
    made = make_plan().outputs(stage, "some/{dataset}")
    assert made == {name: f"results/demo/some/{{dataset}}/{file}" for name, file in stage.outputs.items()}


def test_a_data_set_whose_seeds_have_their_own_splits_has_no_common_ones() -> None:
    with pytest.raises(ValidationError, match="split_seed"):
        make_plan(datasets={"digits": {"split_seed": "per_seed"}}).config.get_dataset("digits", "splits")


def test_planning_imports_nothing_heavy_and_no_snakemake() -> None:
    code = "import sys; from nfpi.workflow import internals, records; print(*sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "numpy", "pandas", "scipy", "sklearn", "timm", "matplotlib", "lightning_fabric", "snakemake"}
    assert not heavy & set(answer.stdout.split())
