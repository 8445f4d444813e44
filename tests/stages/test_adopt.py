"""Results of the format before keys get the keys that they would be made with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nfpi.cli import main
from nfpi.config.base import strip_folders
from nfpi.runtime.manifests import compute_digest, read_manifest
from nfpi.stages.keys import find_job

from .test_keys import list_manifests, make_results, plan


def make_old(root: Path) -> None:
    """Rewrite all manifests in the format before keys."""
    planned = plan(root)
    for path in list_manifests(root):
        record = json.loads((root / path).read_text())
        job = find_job(planned, path.as_posix())
        assert job is not None
        stage = planned.plan(job)
        old = {name: record[name] for name in ("stage", "product", "files", "content", "temporary", "settings")}
        old["seal"] = compute_digest([stage.command, stage.version, strip_folders(stage.declaration)])[:16]
        old["inputs"] = {item["path"]: item["content"] for item in record["inputs"] if item["path"]}
        old |= {"format": 1, "made_from": {}, "facts": {}}
        (root / path).write_text(json.dumps(old | {"sha256": compute_digest(old)}))


@pytest.fixture
def results(tmp_path: Path) -> tuple[Path, dict[Path, Any]]:
    root = make_results(tmp_path / "demo")
    keys = {path: read_manifest(root / path).key for path in list_manifests(root)}
    make_old(root)
    return root, keys


def list_adopted(root: Path) -> dict[Path, str]:
    records = {path: json.loads((root / path).read_text()) for path in list_manifests(root)}
    return {path: record["key"] for path, record in records.items() if record["format"] == 2}


def test_results_get_the_keys_that_they_would_be_made_with(results, capsys):
    root, keys = results
    assert main(["adopt", str(root)]) == 0
    expected = {path: key for path, key in keys.items() if path.parts[0] != "tables"}  # made again in a second
    assert list_adopted(root) == expected
    assert f"{len(expected)} of {len(keys)} products have a key" in capsys.readouterr().out


@pytest.mark.parametrize("change", ["seal", "files"])
def test_what_was_made_with_other_settings_or_from_another_model_gets_none(results, change):
    root, keys = results
    model = Path("digits/mef/fpi/lambda=1000/seed=0/model.manifest.json")
    record = json.loads((root / model).read_text())
    other = {"seal": "another", "files": dict.fromkeys(record["files"], "another")}
    (root / model).write_text(json.dumps(record | {change: other[change], "content": compute_digest(other[change])}))
    assert main(["adopt", str(root)]) == 0
    missing = {path.as_posix() for path in keys.keys() - list_adopted(root).keys()}
    assert "digits/mef/fpi/lambda=1000/seed=0/metrics.manifest.json" in missing
    assert (model.as_posix() in missing) == (change == "seal")
    assert not [path for path in missing if "lambda=10000/seed=0" in path]
