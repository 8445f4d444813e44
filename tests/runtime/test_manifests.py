"""A manifest lists what a stage wrote and from what; whatever differs from it is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from nfpi.runtime.chains import Chain
from nfpi.runtime.files import file_digest, write_atomically
from nfpi.runtime.manifests import (
    Input,
    Manifest,
    ManifestError,
    compute_digest,
    find_faults,
    find_manifests,
    find_product,
    read_inputs,
    read_manifest,
    remove_temporary,
    write_manifest,
)


def make(folder: Path, product: str, content: str = "1", inputs: Sequence[Input] = ()) -> Path:
    """A product of one file, and of a log with a time; its file."""
    write_atomically(folder / "part/file.txt", content)
    write_atomically(folder / "log.csv", str(folder))
    manifest, files = folder / f"{product}.manifest.json", [folder / "part/file.txt", folder / "log.csv"]
    write_manifest(manifest, "make-it", product, files, key="key", timed=files[1:], inputs=inputs)
    return folder / "part/file.txt"


def content_of(folder: Path, product: str) -> str:
    return read_manifest(folder / f"{product}.manifest.json").content


def test_a_product_is_its_content_without_measured_times(tmp_path):
    make(tmp_path / "a", "data")
    make(tmp_path / "b", "data")
    make(tmp_path / "c", "data", "2")
    assert content_of(tmp_path / "a", "data") == content_of(tmp_path / "b", "data")
    assert content_of(tmp_path / "a", "data") != content_of(tmp_path / "c", "data")


@pytest.mark.parametrize("name", ["part/file.txt", "log.csv"])
@pytest.mark.parametrize("change", [lambda file: file.write_text("3"), Path.unlink])
def test_a_changed_or_missing_file_is_refused(tmp_path, name, change):
    make(tmp_path, "data")
    change(tmp_path / name)
    with pytest.raises(ManifestError, match=name):
        find_product(tmp_path / name)
    (fault,) = find_faults(tmp_path / "data.manifest.json")[1]
    assert name in fault


def test_every_changed_byte_of_a_manifest_is_noticed(tmp_path):
    make(tmp_path, "data")
    path = tmp_path / "data.manifest.json"
    content = path.read_bytes()
    known = read_manifest(path)
    for place in range(0, len(content), 3):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with suppress(ManifestError):
            assert read_manifest(path) == known  # a blank became another one


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{}", '{"format": 1}', '{"format": "\\ud800", "sha256": ""}', "[" * 100_000]
)
def test_a_file_that_is_not_a_manifest_is_refused(tmp_path, text):
    path = tmp_path / "data.manifest.json"
    path.write_text(text)
    with pytest.raises(ManifestError):
        read_manifest(path)


def test_another_format_is_refused(tmp_path):
    make(tmp_path, "data")
    path = tmp_path / "data.manifest.json"
    rewrite(path, {"format": 1})
    with pytest.raises(ManifestError, match="received 1"):
        read_manifest(path)


def rewrite(path: Path, changes: dict[str, object]) -> None:
    """Change a manifest and its checksum, which is no signature."""
    record = json.loads(path.read_text()) | changes
    del record["sha256"]
    path.write_text(json.dumps(record | {"sha256": compute_digest(record)}))


def forge(path: Path, names: list[str], temporary: list[str]) -> None:
    """Write other names into a manifest."""
    digest = next(iter(json.loads(path.read_text())["files"].values()))
    rewrite(path, {"files": dict.fromkeys(names, digest), "temporary": temporary})


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """The manifest of results from elsewhere, with links to a folder beside them."""
    make(tmp_path / "results", "data")
    shutil.copytree(tmp_path / "results/part", tmp_path / "outside")
    (tmp_path / "results/link").symlink_to(tmp_path / "outside")
    (tmp_path / "results/file.txt").symlink_to(tmp_path / "outside/file.txt")
    return tmp_path / "results/data.manifest.json"


OUTSIDE = ["../outside/file.txt", "link/file.txt", "part/../../outside/file.txt"]


@pytest.mark.parametrize("name", [*OUTSIDE, "file.txt", "part", "", "a\0b"])
def test_a_name_in_a_manifest_is_that_of_a_file_below_its_folder(foreign, tmp_path, name):
    content = (tmp_path / "outside/file.txt").read_bytes()
    forge(foreign, [name], [])
    (fault,) = find_faults(foreign)[1]
    assert "expected a file below" in fault
    assert str(foreign.parent) in fault
    assert (tmp_path / "outside/file.txt").read_bytes() == content


@pytest.mark.parametrize("name", [*OUTSIDE, "{outside}/file.txt"])
def test_nothing_is_removed_outside_of_the_folder_of_a_manifest(foreign, tmp_path, name):
    name = name.format(outside=tmp_path / "outside")
    forge(foreign, ["part/file.txt", name], ["part/file.txt", name])
    with pytest.raises(PermissionError, match="expected a file below"):
        remove_temporary(foreign)
    assert (tmp_path / "outside/file.txt").exists()


def test_links_in_paths_that_the_user_gives_are_followed(tmp_path):
    """Results may lie on another disk, and a file that the user names, on still another."""
    file = make(tmp_path / "disk", "data")
    (tmp_path / "results").symlink_to(tmp_path / "disk")
    assert find_faults(tmp_path / "results/data.manifest.json") == (3, [])
    file.rename(tmp_path / "elsewhere.txt")
    file.symlink_to(tmp_path / "elsewhere.txt")
    assert find_product(tmp_path / "results/part/file.txt").manifest.product == "data"
    remove_temporary(tmp_path / "results/data.manifest.json")


def test_a_manifest_that_is_removed_meanwhile_is_not_missed(tmp_path, monkeypatch):
    """Snakemake removes that of another table in the same folder before it makes it again."""
    file = make(tmp_path, "data")
    other = tmp_path / "another.manifest.json"
    shutil.copy(tmp_path / "data.manifest.json", other)

    def read_removed(path: Path) -> Manifest:
        other.unlink(missing_ok=True)
        return read_manifest(path)

    monkeypatch.setattr("nfpi.runtime.manifests.read_manifest", read_removed)
    product = find_product(file)
    assert product is not None
    assert product.path == tmp_path / "data.manifest.json"


def test_a_file_without_a_manifest_is_taken_as_it_is(tmp_path, caplog):
    (tmp_path / "file.txt").write_text("1")
    assert find_product(tmp_path / "file.txt") is None
    digest = file_digest(tmp_path / "file.txt")
    files = {"weights": [tmp_path / "file.txt", tmp_path / "missing"]}
    assert read_inputs(files, tmp_path) == [Input(name="weights", key=digest, content=digest)]
    assert not caplog.text
    read_inputs(files, tmp_path, warn=True)
    assert "no manifest lists this file" in caplog.text


def test_the_files_of_one_product_are_one_input(tmp_path):
    data = make(tmp_path / "data", "data")
    files = {"data": [data, tmp_path / "data/log.csv"], "again": [data]}
    known = {"product": "data", "path": "../data/data.manifest.json", "key": "key"}
    content = content_of(tmp_path / "data", "data")
    expected = [Input(name=name, content=content, **known) for name in ("data", "again")]
    assert read_inputs(files, tmp_path / "model") == expected
    every = compute_digest(read_manifest(tmp_path / "data/data.manifest.json").files)
    assert read_inputs({"data": [data]}, tmp_path / "model", with_times=True)[0].content == every


def test_inputs_that_do_not_belong_together_are_both_named(tmp_path):
    data, other = make(tmp_path / "data", "data"), make(tmp_path / "other", "data", "2")
    model = make(tmp_path / "model", "model", inputs=read_inputs({"data": [other]}, tmp_path / "model"))
    images = make(tmp_path / "images", "images", inputs=read_inputs({"model": [model]}, tmp_path / "images"))
    for made in (model, images):
        inputs = read_inputs({"data": [data], "model": [made]}, tmp_path)
        with pytest.raises(ManifestError, match=f"{tmp_path}/data, received what was made from another"):
            Chain().check_together(inputs, tmp_path)
        Chain().check_together(read_inputs({"data": [other], "model": [made]}, tmp_path), tmp_path)


def test_another_input_in_the_place_of_the_first_is_noticed(tmp_path):
    data = make(tmp_path / "data", "data")
    make(tmp_path / "model", "model", inputs=read_inputs({"data": [data]}, tmp_path / "model"))
    path = tmp_path / "model/model.manifest.json"
    assert Chain().find_first_fault(path) == ""
    make(tmp_path / "data", "data", "2")
    assert "made from the data of" in Chain().find_first_fault(path)
    (tmp_path / "data/data.manifest.json").unlink()
    assert Chain().find_first_fault(path) == "", "as in a copy of a part"


def test_a_forged_manifest_may_name_itself(tmp_path):
    item = Input(name="data", product="data", path="data.manifest.json", key="key", content="content")
    make(tmp_path, "data", inputs=[item])
    assert "made from the data of" in Chain().find_first_fault(tmp_path / "data.manifest.json")
    above = item.model_copy(update={"path": f"{tmp_path.name}/data.manifest.json"})
    Chain().check_together([above], tmp_path.parent)


def test_manifests_are_found_below_a_folder(tmp_path):
    make(tmp_path / "a", "data")
    make(tmp_path / "b/c", "model")
    make(tmp_path / ".d.partial", "data")
    assert [path.name for path in find_manifests(tmp_path)] == ["data.manifest.json", "model.manifest.json"]


def test_what_is_to_be_removed_is_among_the_files(foreign):
    forge(foreign, ["part/file.txt"], ["log.csv"])
    with pytest.raises(ManifestError, match="received a damaged one"):
        remove_temporary(foreign)
    assert (foreign.parent / "log.csv").exists()
