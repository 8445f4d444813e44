"""A second preset of one name is noticed; moved presets and moved projects are not taken for one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from nfpi.config.base import ConfigError
from nfpi.workflow.records import check_preset_file, record_preset_file

from .conftest import resolve_settings


class Call:
    """Calls of the workflow in a folder, without Snakemake."""

    def __init__(self, folder: Path, results: str = "results") -> None:
        self.folder, self.results = folder, results

    def write(self, name: str, seed: int = 0) -> None:
        """Write a preset."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump({"extends": "demo", "seeds": [seed]}))

    def run(self, name: str) -> None:
        """Do what a call with this preset does."""
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            resolved = resolve_settings(name, results=self.results)
            check_preset_file(resolved)
            resolved.layout.root.mkdir(parents=True, exist_ok=True)
            record_preset_file(resolved)


@pytest.fixture
def call(tmp_path: Path) -> Call:
    """A folder with presets of one name, the first of which has results."""
    call = Call(tmp_path / "project")
    call.write("a/mine.yaml", seed=1)
    call.write("b/mine.yaml", seed=2)
    call.run("a/mine.yaml")
    return call


def test_a_second_preset_of_one_name_is_refused_in_one_line(call):
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"^results/mine: .* a/mine\.yaml, .* b/mine\.yaml: .*$"):
            call.run("b/mine.yaml")
    call.run("a/mine.yaml")
    call.results = "others"
    call.run("b/mine.yaml")


def test_a_changed_preset_is_the_same_and_another_name_has_results_of_its_own(call):
    call.write("a/mine.yaml", seed=3)
    call.run("a/mine.yaml")
    (call.folder / "b/mine.yaml").rename(call.folder / "b/other.yaml")
    call.run("b/other.yaml")


def test_a_preset_may_be_moved_from_its_results(call):
    (call.folder / "a").rename(call.folder / "c")
    call.run("c/mine.yaml")
    with pytest.raises(ConfigError, match=r"b/mine\.yaml"):
        call.run("b/mine.yaml")


@pytest.mark.parametrize("results", ["results", "../elsewhere/results"])
def test_a_project_may_be_moved_or_copied_with_its_results(tmp_path, results):
    call = Call(tmp_path / "project", results)
    call.write("a/mine.yaml", seed=1)
    call.run("a/mine.yaml")
    moved = Call(tmp_path / "deeper/renamed", results)
    shutil.copytree(call.folder, moved.folder)
    moved.write("a/mine.yaml", seed=3)
    moved.run("a/mine.yaml")
    call.run("a/mine.yaml")
    shutil.rmtree(call.folder)
    moved.run("a/mine.yaml")


def test_a_copy_of_a_preset_may_use_its_results_until_they_differ(call):
    call.write("b/mine.yaml", seed=1)
    call.run("b/mine.yaml")
    call.run("a/mine.yaml")
    call.write("b/mine.yaml", seed=2)
    call.run("a/mine.yaml")
    with pytest.raises(ConfigError, match=r"a/mine\.yaml"):
        call.run("b/mine.yaml")


@pytest.mark.parametrize("note", ["", "\0", b"\xff", "../../b", "../../none/mine.yaml"])
def test_a_damaged_note_is_written_anew(call, note):
    path = call.folder / "results/mine/.preset_file"
    path.write_bytes(note if isinstance(note, bytes) else note.encode())
    call.run("a/mine.yaml")
    assert path.read_text() == "../../a/mine.yaml"
