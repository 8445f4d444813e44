"""What is damaged, or belongs to another run, is refused by every stage that reads it, in one line that names it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from nfpi.runtime.locks import LockedError, acquire
from nfpi.runtime.manifests import SUFFIX, write_manifest

from .conftest import SmallRun, call, check_call, format_options, list_files, read_error_line


@pytest.fixture
def copy(complete_run, tmp_path) -> SmallRun:
    """A run to be damaged."""
    shutil.copytree(complete_run.root, tmp_path / "results")
    return replace(complete_run, root=tmp_path / "results")


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("stage", "file"),
    [
        ("start-flow", "{splits}/train/images.npy"),
        ("start-flow", "{splits}/train/meta.json"),
        ("fit-prior", "{initial}/statistics.safetensors"),
        ("train-flow", "{initial}/state.safetensors"),
        ("train-flow", "{run}/fit/prior.safetensors"),
        ("evaluate", "{run}/model/model.safetensors"),
        ("evaluate", "{run}/log.csv"),
        ("evaluate", "{splits}/test/labels.npy"),
        ("generate", "{run}/model/model.safetensors"),
        ("augment", "{run}/model/model.safetensors"),
        ("train-classifier", "{run}/generated/temperature=1/images.npy"),
        ("test-classifier", "{run}/resnet18/temperature=0.8/model.safetensors"),
    ],
)
def test_one_flipped_bit_is_refused(copy, stage, file, tmp_path, capsys):
    path = Path(file.format(splits=copy.splits, initial=copy.initial, run=copy.folder))
    flip(path)
    assert call(*copy.make_command(stage, output=tmp_path / "new")) == 1
    assert str(path) in read_error_line(capsys)
    assert not (tmp_path / "new").exists()


def test_renamed_classes_are_not_exported(copy, tmp_path, capsys):
    path = copy.splits / "test/meta.json"
    path.write_text(path.read_text().replace('"7"', '"seven"'))
    assert call("export", *format_options(images=path.parent, output=tmp_path / "new")) == 1
    assert f"{path}: " in read_error_line(capsys)
    assert not (tmp_path / "new").exists()


def test_an_edited_digit_gets_into_no_table(copy, tmp_path, capsys):
    path = copy.folder / "metrics.json"
    text = path.read_text()
    path.write_text(text.replace('"nf_acc": ', '"nf_acc": 1', 1))
    paths = {"reference": "none", "root": copy.root, "output": tmp_path / "new"}
    assert call("table", *format_options(name="t", table={}, rows=[copy.row], **paths)) == 1
    assert str(path) in read_error_line(capsys)


def test_the_prior_of_another_initial_state_is_refused(copy, tmp_path, capsys):
    other = replace(copy, seed=4)
    check_call(*other.make_command("start-flow"))
    check_call(*other.make_command("fit-prior"))
    arguments = copy.make_command("train-flow", prior=other.folder / "fit/prior.safetensors", output=tmp_path / "new")
    assert call(*arguments) == 1
    assert str(other.folder / "fit") in read_error_line(capsys)


def test_a_model_of_other_images_is_refused(copy, tmp_path, capsys):
    images = {**copy.images, "split_seed": 5}
    check_call(*copy.make_command("prepare-data", dataset=images, output=tmp_path / "splits"))
    for stage in ("evaluate", "augment", "train-flow"):
        assert call(*copy.make_command(stage, data=tmp_path / "splits", output=tmp_path / "new")) == 1
        assert "data" in read_error_line(capsys)


def test_the_train_split_is_not_taken_for_the_test_split(copy, tmp_path, capsys):
    shutil.rmtree(copy.splits / "test")
    shutil.copytree(copy.splits / "train", copy.splits / "test")
    assert call(*copy.make_command("evaluate", output=tmp_path / "new")) == 1
    assert f"{copy.splits}/test/meta.json: " in read_error_line(capsys)


def test_a_folder_that_is_missing_or_without_results_is_not_verified(tmp_path, capsys):
    for folder in (tmp_path, tmp_path / "absent"):
        assert call("verify", folder) == 1
        assert f"{folder}: " in read_error_line(capsys)


def test_verify_checks_all_files(copy, capsys):
    capsys.readouterr()
    check_call("verify", copy.root)
    listed = len(list_files(copy.root))
    assert f"{copy.root}: {listed} files of" in capsys.readouterr().out
    flip(copy.folder / "predictions.npz")
    (copy.folder / "fit/fixed_point.csv").unlink()
    assert call("verify", copy.root) == 1
    captured = capsys.readouterr()
    assert f"expected {listed} intact files, received 2 " in captured.err
    assert "fixed_point.csv" in captured.out
    assert "predictions.npz" in captured.out


@pytest.mark.parametrize("stage", ["prepare-data", "train-flow", "generate", "augment"])
def test_a_stage_is_locked_until_its_manifest_is_written(copy, stage, monkeypatch):
    """Also one that replaces its folder, and all that lies in it."""
    held: list[Path] = []

    def probe(*arguments, **options):
        held.extend(copy.root.rglob(".*.lock"))
        for path in held:
            with pytest.raises(LockedError):
                acquire(path, "do the same")
        write_manifest(*arguments, **options)

    monkeypatch.setattr("nfpi.stages.execution.write_manifest", probe)
    check_call(*copy.make_command(stage))
    assert len(held) == 1
    assert not held[0].exists()


def test_a_stage_that_is_killed_before_its_manifest_is_not_read(copy, tmp_path, monkeypatch, capsys):
    """Its files are those of the new run, its manifest is that of the old one."""
    monkeypatch.setattr("nfpi.stages.execution.write_manifest", lambda *_, **__: None)
    check_call(*copy.make_command("fit-prior", weight=50))
    assert (copy.folder / f"fit/prior{SUFFIX}").exists()
    assert call(*copy.make_command("train-flow", output=tmp_path / "new")) == 1
    assert "fit/prior.safetensors: " in read_error_line(capsys)
