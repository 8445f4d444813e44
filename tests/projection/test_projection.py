from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from nfpi.config.resolution import resolve
from nfpi.projection.counting import Operation, Step
from nfpi.projection.hours import BANDWIDTH_FRACTION, CARDS, PEAK_FRACTION, TENSOR_CORE_FRACTION, Card, Projection
from nfpi.projection.tables import (
    describe_fit,
    format_memory,
    list_steps,
    main,
    tabulate_cards,
    tabulate_hours,
)
from nfpi.projection.work import Images, Work, list_work

ROOT = Path(__file__).parents[2]
CARD = Card("a card", 10, 1e9, {"float32": 1e12, "bfloat16": 8e12, "float64": 1e11}, 1e-6)


def one(flops: int, moved: int, dtype: torch.dtype = torch.float32) -> list[Operation]:
    return [Operation("aten.mm.default", flops, moved, dtype)]


def test_an_operation_takes_arithmetic_or_memory_whichever_is_longer():
    assert CARD.estimate_seconds(one(10**12, 1)) == pytest.approx(1 / PEAK_FRACTION)
    assert CARD.estimate_seconds(one(1, 10**9)) == pytest.approx(1 / BANDWIDTH_FRACTION)
    mixed = CARD.estimate_seconds(one(10**12, 1, torch.bfloat16))
    assert mixed == pytest.approx(1 / 8 / TENSOR_CORE_FRACTION)
    assert CARD.estimate_seconds(one(10**11, 1, torch.float64)) == pytest.approx(1 / PEAK_FRACTION)


def test_a_host_that_is_slower_than_the_card_decides():
    assert CARD.estimate_seconds(one(1, 1) * 1000) == pytest.approx(1000 * 1e-6)


def test_a_card_has_the_precisions_of_its_arithmetic():
    assert [card.precisions for card in CARDS] == [["32-true"]] + [["32-true", "bf16-mixed"]] * 2


def test_the_work_of_preset_paper_is_what_its_settings_say():
    config = resolve(ROOT / "config.yaml", ROOT / "presets", {"preset": "paper"}).config
    assert Images.of(config.datasets["cifar10"]).train == 47500
    assert Images.of(config.datasets["cifar10_500"]).train == 5000
    assert Images.of(config.datasets["imagenet"]).shape == (4, 32, 32)
    work = list_work(config)
    glow = [w.batches for w in work if w.stage == "train_flow" and w.kind == "flow_step" and w.subject == "glow"]
    assert glow == [499 * 93] * 2  # λ = 0 and 3e5; 47 500 images in batches of 512
    swin = [w.batches for w in work if w.kind == "classifier_step" and w.subject == "swin"]
    assert len(swin) == 8
    assert set(swin) == {1000 * 557}  # 3 · 47 500 images in batches of 256
    assert {w.kind for w in work if not w.subject} == {"vae_encode", "vae_decode"}


def test_a_source_without_a_test_split_gives_a_part_of_its_images():
    digits = resolve(ROOT / "config.yaml", ROOT / "presets", {"preset": "demo"}).config.datasets["digits"]
    found = Images.of(digits)
    assert (found.train, found.validation, found.test) == (1150, 288, 359)


def test_some_classes_of_a_source_have_their_share_of_its_images():
    digits = resolve(ROOT / "config.yaml", ROOT / "presets", {"preset": "digits"}).config.datasets["digits_0_to_7"]
    found = Images.of(digits)
    assert (found.train + found.validation + found.test, found.classes) == (round(0.8 * 1797), 8)


def test_held_out_and_kept_images_are_those_of_the_settings():
    """With `refit` nothing is held out for validation; limits per class apply to the test split too."""
    config = resolve(ROOT / "config.yaml", ROOT / "presets", {"preset": "paper"}).config
    found = Images.of(config.datasets["cifar10_all"])
    assert (found.train, found.validation, found.test) == (50000, 0, 10000)
    found = Images.of(config.datasets["cifar10"].model_copy(update={"test_per_class": 30}))
    assert (found.train, found.validation, found.test) == (47500, 2500, 300)


def test_the_work_on_prepared_data_is_that_of_their_sizes():
    config = resolve(ROOT / "config.yaml", ROOT / "presets", {"preset": "demo"}).config
    own = config.for_dataset("digits")
    prepared = replace(Images.of(config.datasets["digits"]), train=70, validation=20, test=11, classes=3)
    found = {(one.kind, one.subject): one for one in list_work(config, {"digits": prepared}) if one.stage != "augment"}
    assert {one.classes for one in found.values()} == {3}
    drawn = own.generation.per_class * 3
    assert found["flow_inverse", "mef"].batches == -(-drawn // own.generation.batch_size)
    resnet = own.classifiers["resnet18"]
    assert found["classifier_step", "resnet18"].batches == resnet.epochs * -(
        -resnet.repeats * drawn // resnet.batch_size
    )
    swin = own.classifiers["swin"]
    assert found["classifier_step", "swin"].batches == swin.epochs * -(-swin.repeats * 70 // swin.batch_size)
    assert found["classifier_forward", "swin"].batches == -(-(20 + 11) // swin.batch_size)


def test_each_kind_of_variants_of_a_flow_is_work():
    rows = [
        {"dataset": "digits", "classifier": "swin", "augmentation": augmentation, "lambdas": [1]}
        for augmentation in ("nfa", "standard+nfa", "noise")
    ]
    tables = {"*": None, "t": {"metrics": ["top1"], "experiments": rows}}
    none = {"figures": {"*": None}, "claims": {"*": None}}
    config = resolve(ROOT / "config.yaml", ROOT / "presets", {"preset": "demo", "tables": tables, **none}).config
    kinds = [one.kind for one in list_work(config) if one.stage == "augment"]
    assert sorted(kinds) == ["flow_forward"] * 2 + ["flow_inverse"] * 2


def test_a_classifier_that_another_one_fine_tunes_is_part_of_the_work():
    row = {"dataset": "digits", "classifier": "eva02", "augmentation": "standard+nfa", "lambdas": [0, 1]}
    tables = {"*": None, "tuned": {"metrics": ["top1"], "experiments": [row]}}
    none = {"figures": {"*": None}, "claims": {"*": None}}
    config = resolve(ROOT / "config.yaml", ROOT / "presets", {"preset": "demo", "tables": tables, **none}).config
    work = list_work(config)
    trained = [one.subject for one in work if one.kind == "classifier_step"]
    assert trained == [*["eva02"] * 2 * len(config.seeds), *["eva02_pretrained"] * len(config.seeds)]
    known = Images.of(config.datasets["digits"])
    scored = {one.subject: one.batches * one.batch for one in work if one.kind == "classifier_forward"}
    batch = config.for_dataset("digits").classifiers["eva02"].batch_size
    assert 0 <= scored["eva02"] - (known.validation + known.test) < batch
    assert 0 <= scored["eva02_pretrained"] - known.validation < batch


@pytest.mark.parametrize(("every", "evaluations"), [(5, [0, 8]), (3, [0, 14]), (50, [0, 1]), (1, [1, 39])])
def test_validation_is_due_at_multiples_and_after_the_last_of_40_epochs(every, evaluations):
    table = {"metrics": ["nf_acc"], "experiments": [{"dataset": "digits", "lambdas": [1e3], "classifier": None}]}
    none = {"figures": {"*": None}, "claims": {"*": None}}
    settings = {"preset": "demo", "tables": {"*": None, "t": table}, **none}
    config = resolve(ROOT / "config.yaml", ROOT / "presets", settings).config
    block = config.datasets["digits"].model_copy(update={"overrides": {}})
    training = config.training.model_copy(
        update={"epochs": 40, "evaluate_every": every, "batch_size": 1, "initialization_images": 1}
    )
    config = config.model_copy(update={"training": training, "datasets": {"digits": block}})
    sizes = {"digits": replace(Images.of(block), train=0, validation=1000)}
    work = {one.stage: one.batches for one in list_work(config, sizes) if one.kind == "flow_forward"}
    assert [work["start_flow"] // 1000, work["train_flow"] // 1000] == evaluations


def test_a_source_of_known_size_keeps_it_whatever_image_size_says():
    digits = resolve(ROOT / "config.yaml", ROOT / "presets", {"preset": "demo"}).config.datasets["digits"]
    folder = digits.model_copy(update={"source": "imagefolder", "image_size": 64})
    assert Images.of(digits.model_copy(update={"image_size": 64})).shape == (1, 8, 8)
    assert Images.of(folder).shape == (3, 64, 64)


def test_the_tables_sum_the_stages(tmp_path, monkeypatch, capsys):
    tiny = {"mef": {"num_flows": [1], "num_blocks": [0], "hidden_channels": [4]}}
    config = resolve(ROOT / "config.yaml", ROOT / "presets", {"preset": "demo", "flows": tiny}).config
    work = [w for w in list_work(config) if w.subject == "mef" and w.stage in ("start_flow", "evaluate", "generate")]
    monkeypatch.setattr("nfpi.projection.tables.list_work", lambda _: work)
    monkeypatch.chdir(ROOT)
    main(["--preset", "demo"])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    for stage in ("start_flow", "evaluate", "generate", "**all**"):
        assert any(row.startswith(f"| {stage} |") for row in rows), stage
    assert sum(row.startswith("| mef, 1×8×8") for row in rows) == 1


def test_the_document_states_the_rates_that_are_assumed():
    text = (ROOT / "docs/jean-zay.md").read_text(encoding="utf-8")
    assert tabulate_cards() in text
    assert f"{PEAK_FRACTION:.0%} of the peak rate in float32".replace("%", " %") in text
    assert f"{TENSOR_CORE_FRACTION:.0%} in bfloat16, {BANDWIDTH_FRACTION:.0%} of the".replace("%", " %") in text


def test_a_flow_is_counted_with_the_settings_of_its_data_set():
    tiny = {"mef": {"num_flows": [1], "num_blocks": [0], "hidden_channels": [4]}}
    larger = {"flows": {"mef": {"hidden_channels": [8]}}}
    datasets = {"digits": {}, "others": {"source": "digits", "overrides": larger}, "same": {"source": "digits"}}
    row = {"lambdas": [1e3], "classifier": None}
    tables = {"*": None, "t": {"metrics": ["nf_acc"], "experiments": [{**row, "dataset": name} for name in datasets]}}
    none = {"figures": {"*": None}, "claims": {"*": None}}
    settings = {"preset": "demo", "flows": tiny, "datasets": datasets, "tables": tables, **none}
    config = resolve(ROOT / "config.yaml", ROOT / "presets", settings).config
    projection = Projection(config, list_work(config))
    steps = {work.dataset: projection.count(work, "32-true") for work in projection.work if work.kind == "flow_step"}
    assert steps["digits"] is steps["same"]
    assert steps["others"].state > steps["digits"].state
    assert {title for title, _ in list_steps(projection)} == {"mef, 1×8×8, batch 128"}


def test_small_stages_share_a_row_and_are_part_of_the_sum():
    hours = {"train_flow: mef": 198.0, "evaluate": 1.0, "generate": 1.0}
    projection = SimpleNamespace(estimate_hours=lambda card, precision: hours)
    rows = [line.split(" | ") for line in tabulate_hours(projection).splitlines() if line.startswith("| ")]
    found = {row[0].removeprefix("| "): row[1] for row in rows}
    assert [found[name] for name in ("train_flow: mef", "all other stages", "**all**")] == ["198", "2.0", "**200**"]
    assert "evaluate" not in found


def test_a_step_that_does_not_fit_a_card_says_on_which_and_what_would():
    step = Step([], [], saved=40 * 2**30, state=2**30)
    work = Work("train_flow", "flow_step", "mef", "cifar10", (3, 32, 32), 10, 512, 1)
    assert format_memory(step, "32-true", work) == f"41.0 (V100 32 GB: batch {int(512 * (0.85 * 32 - 1) / 40)})"
    assert format_memory(step, "bf16-mixed", work) == "41.0"


def test_what_does_not_fit_says_what_would():
    large = Step([], [], saved=16 * 2**30, state=2**30)
    flow = Work("train_flow", "flow_step", "mef", "cifar10", (3, 32, 32), 10, 512, 1)
    classifier = replace(flow, kind="classifier_step", batch=64)
    assert describe_fit(large, replace(CARD, memory=40), flow) == "fits"
    assert describe_fit(large, CARD, flow) == f"batch {int(512 * (0.85 * 10 - 1) / 16)}"
    assert describe_fit(large, CARD, classifier) == "accumulate: 4"
    assert describe_fit(large, replace(CARD, memory=1), classifier) == "does not fit"
    assert describe_fit(replace(large, saved=2**50), CARD, flow) == "does not fit"
