"""What the page says, with everything there, and with parts of it missing or damaged."""

from __future__ import annotations

import html
import logging
import os
import re
import shutil
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import torch

from nfpi.cli import main
from nfpi.config.resolution import resolve
from nfpi.data import write_image_set
from nfpi.data.store import read_image_set
from nfpi.page.runs import read_agreement
from nfpi.page.write import read_page, write_page
from nfpi.results.recorded.calls import SETTINGS_FILE
from nfpi.results.recorded.predictions import write_predictions
from nfpi.results.recorded.runs import OUTDATED, find_runs
from nfpi.runs import PRESET_FILE, Run
from nfpi.runtime.formats import FormatError
from nfpi.runtime.manifests import SUFFIX, Input, read_manifest, write_manifest
from nfpi.workflow.records import write_page_at_end

from .conftest import (
    AUGMENTED,
    BASELINE,
    CLASSES,
    DIVERGED,
    FITTED,
    ON_GENERATED_IMAGES,
    TITLE,
    VALUES,
    N,
    Results,
)

ROOT = Path(__file__).parents[2]


def text_of(path: Path) -> str:
    """What a reader sees, in one line."""
    text = re.sub(r"<(style|script)\b.*?</\1>", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())


@pytest.fixture(scope="module")
def page(finished_results: Results) -> Path:
    return write_page(finished_results.root)


def test_the_page_shows_numbers_tables_figures_and_runs(page):
    text = text_of(page)
    for part in ("preset mine", "animals 95 % mef, fpi, λ = 10⁴", "λ = 0: 80 %", "the paper: 96 % (difference −1)"):
        assert part in text
    for part in ("class 1 at iteration 2", "brier_of_mine", f"{N} test images"):
        assert part in text
    assert TITLE in text
    assert "Missing or damaged" not in text


def test_the_page_needs_no_other_file(page):
    source = page.read_text(encoding="utf-8")
    sources = re.findall(r'src="([^"]{0,30})', source)
    assert sources
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert not re.search(r"https?:|<link|@import|url\(", source)


def test_what_the_page_links_to_is_there(page):
    source = page.read_text(encoding="utf-8")
    links = set(re.findall(r'href="([^"]+)"', source))
    files = {unquote(link) for link in links if not link.startswith("#")}
    assert {"tables/table2.csv", "tables/table2.tex", "figures/samples.png", f"{FITTED.folder}/metrics.json"} <= files
    assert all((page.parent / file).is_file() for file in files)
    identifiers = re.findall(r'id="([^"]+)"', source)
    assert len(identifiers) == len(set(identifiers))
    assert {link[1:] for link in links if link.startswith("#")} <= set(identifiers)


def test_runs_stand_with_what_was_made_of_them(finished_results):
    page = read_page(finished_results.root)
    shown = {run.recorded.run: run for flow in page["runs"] for run in flow.with_classifiers}
    assert [run.recorded.run for run in shown[FITTED].classifiers] == [ON_GENERATED_IMAGES, AUGMENTED]
    assert len(shown[FITTED].curves) == len(shown[FITTED].samples) == 1
    agreement = shown[FITTED].agreement
    assert agreement.classes == CLASSES
    assert sum(map(sum, agreement.counts)) == N
    assert shown[DIVERGED].agreement is None


def test_a_flow_that_does_not_follow_its_prior_is_marked(results):
    results.measure(FITTED, **VALUES[FITTED], mismatch=0.05)
    assert "mismatch 0.05" not in text_of(write_page(results.root))
    results.measure(FITTED, **VALUES[FITTED], mismatch=1.0, beta=0.18)
    assert "mismatch 1.00 bits/dim, β 0.18" in text_of(write_page(results.root))


_HEADER = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
HUGE = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + _HEADER + struct.pack(">I", zlib.crc32(_HEADER))
"""PNG that declares 10¹⁰ pixels"""


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (f"{FITTED.folder}/metrics.json", b"{"),
        (f"{FITTED.folder}/predictions.npz", b"x"),
        (f"{FITTED.folder}/generated/temperature=0.9/meta.json", b""),
        ("tables/table2.csv", b"a,b\n1,2\n"),
        ("figures/samples.png", b"PNG"),
        ("figures/samples.png", HUGE),
        ("figures/figure1_full.png", None),
    ],
)
def test_what_is_damaged_is_named_and_the_rest_is_shown(results, name, content):
    if content is None:
        (results.root / name).unlink()
    else:
        (results.root / name).write_bytes(content)
    text = text_of(write_page(results.root))
    assert "Missing or damaged" in text
    assert f"{name}: " in text
    assert "Results of preset mine" in text
    assert "80 %" in text


def test_a_number_that_is_not_what_a_stage_wrote_is_not_shown(results):
    folder = results.locate_run(FITTED)
    outputs = [folder / name for name in ("metrics.json", "predictions.npz")]
    manifest = folder / f"metrics{SUFFIX}"
    write_manifest(manifest, "evaluate", "metrics", outputs, key="key")
    assert "95 %" in text_of(write_page(results.root))
    path = folder / "metrics.json"
    path.write_text(path.read_text().replace('"nf_acc": 95.0', '"nf_acc": 97.0', 1))
    text = text_of(write_page(results.root))
    assert f"{FITTED.folder}/metrics.json: " in text
    assert "97 %" not in text
    path.unlink()
    assert f"{FITTED.folder}/metrics.json: " in text_of(write_page(results.root))


def test_a_table_that_is_not_what_a_stage_wrote_is_not_shown(results):
    name = "tables/table2.csv"
    path = results.root / name
    manifest = path.with_name(f"{path.stem}{SUFFIX}")
    write_manifest(manifest, "table", "table", [path], key="key")
    assert f"{name}: expected what table wrote" not in text_of(write_page(results.root))
    *_, last = path.read_text().splitlines(keepends=True)
    path.write_text(path.read_text() + last)
    assert f"{name}: " in text_of(write_page(results.root))


def test_predictions_of_a_diverged_run_whose_metrics_were_changed_are_a_fault(results):
    record_data(results, DIVERGED, "")
    path = results.locate_run(DIVERGED) / "metrics.json"
    path.write_text(path.read_text().replace('"iteration": 2', '"iteration": 3', 1))
    text = text_of(write_page(results.root))
    assert f"{DIVERGED.folder}/metrics.json: " in text
    assert f"{DIVERGED.folder}/predictions.npz: " in text
    assert "80 %" in text


def prepare_splits(results: Results, first_class: str) -> str:
    """Write the manifest of splits whose first class has this name, and return their digest."""
    splits = results.root / "animals/splits"
    meta = splits / "test/meta.json"
    first, *_ = read_image_set(splits / "test", verify=False).classes
    meta.write_text(meta.read_text().replace(first, first_class))
    path = splits / f"data{SUFFIX}"
    write_manifest(path, "prepare-data", "data", [meta], key="key")
    return read_manifest(path).content


def record_data(results: Results, run: Run, data: str, splits: str = "splits") -> None:
    """Write the manifest of the metrics of a run made from this data set."""
    folder = results.locate_run(run)
    outputs = [folder / name for name in ("metrics.json", "predictions.npz")]
    manifest = folder / f"metrics{SUFFIX}"
    where = Path(os.path.relpath(results.root / f"animals/{splits}/data{SUFFIX}", folder)).as_posix()
    inputs = [Input(name="data", product="data", path=where, key="key", content=data)]
    write_manifest(manifest, "evaluate", "metrics", outputs, key="key", inputs=inputs)


@pytest.fixture
def outdated(results: Results) -> Results:
    """Two runs made before a class was renamed, one made after it, and others of which it is unknown."""
    before, after = prepare_splits(results, "ant"), prepare_splits(results, "wasp")
    for run, data in {FITTED: before, ON_GENERATED_IMAGES: before, BASELINE: after}.items():
        record_data(results, run, data)
    return results


def test_an_outdated_run_has_no_classes_of_the_present_data_set(outdated):
    page = read_page(outdated.root)
    shown = {run.recorded.run: run for flow in page["runs"] for run in flow.with_classifiers}
    for run in (FITTED, ON_GENERATED_IMAGES):
        assert (shown[run].agreement, shown[run].samples) == (None, [])
        assert OUTDATED in shown[run].remark
    for run in (BASELINE, AUGMENTED):
        assert shown[run].agreement.classes == ["wasp", *CLASSES[1:]]
        assert shown[run].remark == ""
    source = write_page(outdated.root).read_text(encoding="utf-8")
    _, _, section = source.partition(f'<details class="run" id="{shown[ON_GENERATED_IMAGES].id}">')
    section, _, _ = section.partition("</details>")
    assert OUTDATED in section
    assert "wasp" not in section


def test_outdated_runs_are_marked_and_named_at_the_head(outdated):
    page = read_page(outdated.root)
    assert page["problems"] == [f"2 runs, each {OUTDATED}"]


def test_a_page_of_runs_that_are_up_to_date_is_the_same_as_without_manifests(results):
    data = prepare_splits(results, CLASSES[0])
    page = write_page(results.root)
    before = page.read_bytes()
    record_data(results, FITTED, data)
    assert write_page(results.root).read_bytes() == before


def test_a_run_is_not_outdated_while_the_manifest_of_its_data_set_is_missing_or_damaged(outdated):
    manifest = outdated.root / f"animals/splits/data{SUFFIX}"
    assert sum(bool(item.outdated) for item in find_runs(outdated.root)) == 2
    manifest.write_text("{")
    assert not any(item.outdated for item in find_runs(outdated.root))
    manifest.unlink()
    assert not any(item.outdated for item in find_runs(outdated.root))


def test_a_run_is_compared_with_the_splits_of_its_own_seed(results):
    data = prepare_splits(results, CLASSES[0])
    splits = results.root / "animals/splits"
    for name in ("test", f"data{SUFFIX}"):
        target = splits / "seed=0" / name
        target.parent.mkdir(exist_ok=True)
        (splits / name).rename(target)
    record_data(results, FITTED, data, "splits/seed=0")
    record_data(results, BASELINE, "of other images", "splits/seed=0")
    assert [item.run for item in find_runs(results.root) if item.outdated] == [BASELINE]


def test_classes_are_those_of_the_splits_that_a_run_was_made_from(results):
    splits = results.root / "animals/splits"
    prepare_splits(results, "wasp")
    shutil.copytree(splits, splits / "seed=0")  # left from a call in which each seed had its own splits
    record_data(results, FITTED, prepare_splits(results, "hornet"))
    shown = {run.recorded.run: run for run in read_page(results.root)["runs"]}
    assert shown[FITTED].remark == ""
    assert shown[FITTED].agreement.classes == ["hornet", *CLASSES[1:]]


def test_samples_stand_above_the_sections(results):
    head, _, rest = write_page(results.root).read_text("utf-8").partition("<nav")
    source = re.search(r'src="(figures/samples[^"]*|data:[^"]*)"', head)
    assert source is not None
    assert source[1] in rest


def test_the_images_of_the_best_flow_stand_above_the_sections(results):
    (results.locate_run(FITTED) / "model").mkdir()
    samples = read_page(results.root)["samples"]
    assert samples.caption.startswith("mef, fpi, λ = 10⁴, seed 0. Images drawn at T = 0.9")


def test_numbers_of_a_run_are_grouped(results):
    results.measure(FITTED, **VALUES[FITTED], ece=3.0, own_distance=2.0)
    shown = {run.recorded.run: run for run in read_page(results.root)["runs"]}
    labels = {group: [label for label, _ in values] for group, values in shown[FITTED].values.items()}
    assert labels == {
        "accuracy": ["NF-Acc", "Validation NF-Acc"],
        "density": ["bits/dim"],
        "probabilities": ["ECE"],
        "cost": ["Training"],
        "other": ["own_distance"],
    }


def test_a_discriminant_has_no_curves(results):
    (results.locate_run(FITTED) / "log.csv").write_text("epoch\n")
    shown = {run.recorded.run: run for run in read_page(results.root)["runs"]}
    assert (shown[FITTED].curves, shown[FITTED].faults) == ([], [])
    assert shown[BASELINE].curves


def test_only_metrics_of_runs_are_explained(results):
    assert {label for label, _ in read_page(results.root)["explanations"]} == {
        *("NF-Acc", "bits/dim", "Training", "CNN-Acc", "T", "Top-1"),
    }


@pytest.fixture
def own(results: Results) -> Results:
    """Results of a preset of the user's, with the model of the best flow."""
    (results.root / PRESET_FILE).write_text("../../mine.yaml", encoding="utf-8")
    (results.locate_run(FITTED) / "model").mkdir()
    return results


def write_photos(results: Results, names: list[str] | None) -> None:
    """Write the test split again, as images of these files, and predictions of which three are wrong."""
    labels = np.arange(N) % len(CLASSES)
    pixels = np.arange(N, dtype=np.uint8)[:, None, None, None] * np.ones((8, 8, 3), np.uint8)
    folder = results.root / "animals/splits/test"
    write_image_set(folder, pixels, labels, CLASSES, name="animals", originals=names, flip=True)
    log_prob = 9.0 * torch.nn.functional.one_hot(torch.from_numpy(labels), len(CLASSES))
    for index, margin in ((5, 1.0), (7, 3.0), (30, 2.0)):
        log_prob[index] = torch.zeros(len(CLASSES))
        log_prob[index, (labels[index] + 1) % len(CLASSES)] = margin
    write_predictions(results.locate_run(FITTED) / "predictions.npz", torch.from_numpy(labels), log_prob)


@pytest.mark.parametrize("with_names", [True, False])
def test_a_page_of_own_photos_shows_the_misclassified_ones_and_the_command(own, with_names):
    write_photos(own, [f"photos/{index}\udcff.png" for index in range(N)] if with_names else None)
    images = read_page(own.root)["own"].misclassified
    assert [image.caption for image in images] == [
        "bee, taken for cow & calf (90.9 %)",
        "<ant>, taken for bee (78.7 %)",
        "cow & calf, taken for <ant> (57.6 %)",
    ]
    assert [image.description for image in images] == [f"photos/{index}�.png" * with_names for index in (7, 30, 5)]
    text = text_of(write_page(own.root))
    command = f"nfpi classify {own.locate_run(FITTED)}/model photo.jpg --resize"
    assert command in text
    assert text.index(command) < text.index("NF-Acc on animals")


def test_at_most_24_misclassified_photos_are_shown(own):
    write_photos(own, None)
    labels = torch.arange(N) % len(CLASSES)
    write_predictions(
        own.locate_run(FITTED) / "predictions.npz", labels, torch.nn.functional.one_hot((labels + 1) % 3, 3).float()
    )
    assert len(read_page(own.root)["own"].misclassified) == 24


def test_damaged_photos_are_a_fault(own):
    write_photos(own, ["a"] * N)
    (own.root / "animals/splits/test/files.json").write_text("[]")
    text = text_of(write_page(own.root))
    assert "files.json: expected sha256" in text
    assert "nfpi classify" in text


def test_damaged_predictions_of_the_best_flow_are_named_once(own):
    (own.locate_run(FITTED) / "predictions.npz").write_bytes(b"x")
    assert len([line for line in read_page(own.root)["problems"] if "predictions.npz" in line]) == 1


def test_a_preset_of_the_project_has_no_misclassified_photos(results):
    (results.locate_run(FITTED) / "model").mkdir()
    assert read_page(results.root)["own"] is None


def test_runs_have_names_of_their_own(results):
    results.measure(replace(ON_GENERATED_IMAGES, prior="baseline", weight=0.0), cnn_acc=50.0)
    results.measure(replace(FITTED, seed=1), nf_acc=97.0)
    source = write_page(results.root).read_text(encoding="utf-8")
    names = re.findall(r'<summary>(<span class="run-name">.*?</span> <span class="run-seed">.*?</span>)', source)
    assert len(names) == len(set(names)) == 8


def test_what_is_not_made_yet_is_no_fault(results):
    for path in (results.root / "tables").iterdir():
        path.unlink()
    (results.root / "figures/samples.png").unlink()
    assert "Missing or damaged" not in text_of(write_page(results.root))


def test_the_paper_is_named_only_above_results_of_its_presets(results):
    assert "BMVC 2024" in text_of(write_page(results.root))
    (results.root / PRESET_FILE).write_text("../../mine.yaml", encoding="utf-8")
    assert "BMVC 2024" not in text_of(write_page(results.root))


def test_damaged_settings_are_refused(results):
    (results.root / SETTINGS_FILE).write_bytes(b"[]")
    with pytest.raises(FormatError, match=SETTINGS_FILE):
        write_page(results.root)


def test_of_many_classes_only_mistakes_are_shown(results):
    labels = torch.arange(200) % 100
    log_prob = torch.nn.functional.one_hot((labels + (labels == 7)) % 100, 100).float() * 9
    write_predictions(results.root / "many.npz", labels, log_prob)
    agreement = read_agreement(results.root / "many.npz", [])
    assert not agreement.counts
    assert agreement.mistakes == [("7", "8", 2)]


def test_by_hand(results, capsys):
    for folder in (results.root, results.root.parent):  # the parent stands for all results in it
        (results.root / "index.html").unlink(missing_ok=True)
        assert main(["page", str(folder)]) == 0
        assert (results.root / "index.html").is_file()
    assert main(["page", str(results.root / "none")]) == 1
    assert str(results.root / "none") in capsys.readouterr().err.splitlines()[-1]


def test_a_page_that_cannot_be_written_is_one_line_at_the_end_of_a_call(results, caplog):
    settings = {"preset": "demo", "results": str(results.root.parent)}
    resolved = resolve(ROOT / "config.yaml", ROOT / "presets", settings)
    results.root.rename(resolved.layout.root)
    page = resolved.layout.root / "index.html"
    page.mkdir()
    with caplog.at_level(logging.INFO):
        write_page_at_end(logging.getLogger("snakemake"), resolved)
        page.rmdir()
        write_page_at_end(logging.getLogger("snakemake"), resolved)
    failed, written = [record.getMessage() for record in caplog.records if record.name == "snakemake"]
    assert "not written" in failed
    assert str(page) in written


def test_planning_a_call_imports_nothing_of_the_page():
    code = (
        "import sys; import nfpi.workflow.records, nfpi.workflow; "
        "assert not {'jinja2', 'pandas', 'matplotlib', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
