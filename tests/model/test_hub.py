"""Folders with a card, what is refused in them, and the hub, for which a server on this machine stands in."""

from __future__ import annotations

import base64
import copy
import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import HfApi
from huggingface_hub.errors import HTTPError

from nfpi import ClassConditionalFlow
from nfpi.priors import GaussianPrior
from nfpi.runtime.formats import FormatError

COMMIT = "1" * 40


# ---- folders ------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(fitted: ClassConditionalFlow, tmp_path: Path) -> Path:
    fitted.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_saved_model_is_the_same_model(fitted, images, folder):
    model = ClassConditionalFlow.from_pretrained(folder)
    assert (model.log_prob(images.images) == fitted.log_prob(images.images)).all()
    assert model.config == fitted.config
    assert ClassConditionalFlow.read(str(folder)).classes == fitted.classes


def test_a_folder_without_a_card_is_a_model_too(fitted, tmp_path):
    """As the stages write it."""
    fitted.write(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    assert ClassConditionalFlow.from_pretrained(tmp_path).classes == fitted.classes


def test_the_card_says_what_is_known(fitted, held_out, tmp_path):
    metrics = fitted.evaluate(held_out.images, held_out.labels)
    fitted.save_pretrained(tmp_path, metrics=metrics, license="cc-by-4.0")
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    _, header, text = card.split("---\n", 2)
    facts = yaml.safe_load(header)
    assert (facts["license"], facts["library_name"]) == ("cc-by-4.0", "nfpi")
    found = {entry["type"]: entry["value"] for entry in facts["model-index"][0]["results"][0]["metrics"]}
    assert found["accuracy"] == pytest.approx(metrics["nf_acc"], abs=1e-3)
    low, high = metrics["nf_acc_interval"]
    for part in ("λ = 100", "`class1`", "8×8", f"interval {low:.2f} to {high:.2f}", "cc-by-4.0", "@inproceedings"):
        assert part in text, part
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        f"## {name}" for name in ("Use", "Data", "Settings", "Metrics", "Limits", "Licence", "How to cite")
    ]


def test_an_existing_card_is_kept_with_a_warning(fitted, folder, caplog):
    card = folder / "README.md"
    card.write_text("mine", encoding="utf-8")
    fitted.save_pretrained(folder, license="mit")
    assert card.read_text(encoding="utf-8") == "mine"
    assert str(card) in caplog.text


@pytest.mark.parametrize(
    ("metrics", "row", "on_hub"),
    [
        ({"nf_acc": 90.0}, "| test |  | 90.0 % |  |  |  |", {"accuracy": 90.0}),
        ({"ece": np.float32(1.5), "n": 7}, "| test | 7 |  |  | 1.50 % |  |", {"ece": 1.5}),
        ({"bits_per_dim": 2, "f1": "?"}, "| test |  |  | 2.000 |  |  |", {"bits_per_dim": 2.0}),
        ({"n": 3, "worst_class_acc": 5.0, "worst_class": "a"}, "| test | 3 |  |  |  | 5.0 % (`a`) |", {}),
        ({}, "Not measured.", {}),
    ],
)
def test_the_card_shows_the_metrics_that_are_given(fitted, metrics, row, on_hub):
    card = fitted.generate_model_card(metrics=metrics)
    assert row in card.text.splitlines()
    assert {result.metric_type: result.metric_value for result in card.data.eval_results or ()} == on_hub


def test_other_metrics_are_refused_before_anything_is_written(fitted, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"^metrics: .*accuracy"):
        fitted.save_pretrained(tmp_path / "model", metrics={"accuracy": 0.9})
    assert not (tmp_path / "model").exists()
    monkeypatch.setattr(HfApi, "create_repo", lambda *arguments, **options: pytest.fail("pushed"))
    with pytest.raises(ValueError, match=r"^metrics: "):
        fitted.push_to_hub("own/model", metrics={"accuracy": 0.9})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "y, obtained by the method `fixed_point`."),
        ({"prior": {"method": "fixed_point", "iterations": 9, "converged": False}}, "did not converge in 9 iterations"),
        ({"prior": {"lambda": 0.0}}, "y, kept at their initial values."),
        ({"prior": {}, "start": "release"}, "y, read from a checkpoint of the paper's code."),
    ],
)
def test_the_card_says_where_the_gaussians_are_from(fitted, changes, sentence):
    model = replace(fitted, config=fitted.config | changes)
    assert sentence in model.generate_model_card().text


def add_class(model: ClassConditionalFlow) -> None:
    more = torch.cat([model.prior.mean, model.prior.mean[:1]])
    model.prior = GaussianPrior(more, torch.ones_like(more))


def rename_class(model: ClassConditionalFlow) -> None:
    names = ["a", "b", "a"]
    model.config = {**model.config, "data": {**model.data, "classes": names}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: model.flow.double(), "float64"),
        (lambda model: setattr(model.flow, "kind", "unknown"), "unknown"),
        (add_class, "prior"),
        (rename_class, "classes"),
        (lambda model: model.config.update(seed="one"), "seed"),
    ],
)
def test_a_model_that_could_not_be_read_is_not_written(fitted, folder, change, message):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    model = copy.deepcopy(fitted)
    change(model)
    with pytest.raises(ValueError, match=message):
        model.write(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_names_of_classes_are_distinct(fitted):
    data = {**fitted.data, "classes": ["a", "b", "b"]}
    with pytest.raises(ValueError, match="classes"):
        replace(fitted, config={**fitted.config, "data": data})


def test_a_file_is_no_model(folder, monkeypatch):
    (folder / "x.ckpt").touch()
    monkeypatch.chdir(folder.parent)
    for name in ("model/x.ckpt", folder / "x.ckpt"):
        with pytest.raises(FormatError, match=r"x\.ckpt: "):
            ClassConditionalFlow.from_pretrained(name)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "flow.ckpt"])
def test_a_pickle_is_never_read(folder, name):
    (folder / "model.safetensors").unlink()
    torch.save({"weight": torch.zeros(1)}, folder / name)
    with pytest.raises(FormatError, match=name):
        ClassConditionalFlow.from_pretrained(folder)


def edit(folder: Path, key: str, value: object) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config[key] = value
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "config.json").write_text("{"), "config.json"),
        (lambda folder: (folder / "config.json").unlink(), "config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors"),
        (lambda folder: os.truncate(folder / "model.safetensors", 5000), "model.safetensors"),
        (lambda folder: edit(folder, "format", 9), "9"),
        (lambda folder: edit(folder, "seed", "one"), "config.json"),
        (lambda folder: edit(folder, "data", {"name": None, "classes": ["a"], "extra": {}}), "config.json"),
        (lambda folder: edit(folder, "data", {"name": None, "classes": 3 * ["a"], "extra": {}}), "classes"),
        (lambda folder: edit(folder, "prior", "gaussian"), "config.json"),
    ],
)
def test_a_damaged_folder_is_one_line(folder, change, message):
    change(folder)
    with pytest.raises(FormatError) as error:
        ClassConditionalFlow.from_pretrained(folder)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["a/b/c", "./flow", "/flow", "owner/", "a b/c", Path("owner/none")])
def test_what_is_neither_a_folder_nor_a_repository_is_one_line(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FormatError, match=str(name)) as error:
        ClassConditionalFlow.from_pretrained(name)
    assert "\n" not in str(error.value)


# ---- the hub ------------------------------------------------------------------------------------------------


class Hub(BaseHTTPRequestHandler):
    """What huggingface_hub asks of the hub to make a repository, to commit small files, and to download them."""

    files: dict[str, bytes] = {}
    requests: list[str] = []

    def answer(self, content: object, headers: dict[str, str] | None = None, status: int = 200) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.partition("?")[0]
        self.requests.append(f"POST {path}")
        if path == "/api/repos/create":
            self.answer({"url": f"{self.address}/own/flow", "name": "own/flow", "id": "1"})
        elif path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            names = [file["path"] for file in json.loads(body)["files"]]
            kept = [{"path": name, "uploadMode": "regular", "shouldIgnore": False, "oid": None} for name in names]
            self.answer({"files": kept})
        elif "/commit/" in path:
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    self.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            self.answer({"success": True, "commitOid": COMMIT, "commitUrl": f"{self.address}/own/flow/commit/{COMMIT}"})
        else:
            self.answer({"error": "unknown"}, status=404)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.requests.append(f"{self.command} {path}")
        if path.startswith("/api/models/own/flow/tree/"):
            listed = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in self.files.items()
            ]
            self.answer(listed)
        elif path.startswith("/api/models/own/flow"):
            siblings = [{"rfilename": name} for name in self.files]
            self.answer({"id": "own/flow", "modelId": "own/flow", "sha": COMMIT, "siblings": siblings, "tags": []})
        elif path.startswith("/own/flow/resolve/") and path.rpartition("/")[2] in self.files:
            data = self.files[path.rpartition("/")[2]]
            self.answer(data, {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'})
        else:
            missing = {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}
            self.answer({"error": "Repository not found"}, missing, 404)

    do_HEAD = do_GET

    @property
    def address(self) -> str:
        return "http://{}:{}".format(*self.server.server_address[:2])

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def hub() -> Iterator[str]:
    """Address of a hub without repositories."""
    Hub.files, Hub.requests = {}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield "http://{}:{}".format(*server.server_address[:2])
    server.shutdown()
    server.server_close()
    thread.join()


PROGRAM = """
import sys
import numpy as np
from nfpi import ClassConditionalFlow

model = ClassConditionalFlow.from_pretrained(sys.argv[1])
print(model.push_to_hub("own/flow", license="mit", token="hf_none"))
found = ClassConditionalFlow.from_pretrained("own/flow", token=False)
images = np.load(sys.argv[2])
assert (found.log_prob(images) == model.log_prob(images)).all()
again = ClassConditionalFlow.from_pretrained("own/flow", local_files_only=True)
assert (again.log_prob(images) == model.log_prob(images)).all()
try:
    ClassConditionalFlow.from_pretrained("own/other", token=False)
except ValueError as error:
    print(error)
"""


def test_a_model_is_pushed_and_pulled(hub, folder, images, fitted, tmp_path):
    np.save(tmp_path / "images.npy", images.images[:5])
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    environment.pop("HF_HUB_OFFLINE", None)
    command = [sys.executable, "-c", PROGRAM, str(folder), str(tmp_path / "images.npy")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:] + "\n".join(Hub.requests)
    assert sorted(Hub.files) == ["README.md", "config.json", "model.safetensors"]
    assert Hub.files["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert b"license: mit" in Hub.files["README.md"]
    address, refused = done.stdout.splitlines()
    assert address.startswith(hub)
    assert refused.startswith("own/other: ")


def test_a_folder_needs_no_network(folder, images, tmp_path):
    """Nor does it make the hub's cache."""
    shutil.copytree(folder, tmp_path / "own/flow")
    program = "from nfpi import ClassConditionalFlow; print(ClassConditionalFlow.from_pretrained('own/flow').classes)"
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.stdout.strip() == str(images.classes), done.stderr[-2000:]
    assert not (tmp_path / "home").exists()


def test_an_error_of_the_connection_is_one_line(monkeypatch):
    def fail(*_: object, **__: object) -> str:
        raise HTTPError("403 Forbidden")

    monkeypatch.setattr("nfpi.model.hub.snapshot_download", fail)
    with pytest.raises(FormatError, match=r"own/model: .*403"):
        ClassConditionalFlow.from_pretrained("own/model")


def test_a_full_disk_is_not_called_an_unknown_repository(monkeypatch):
    def fail(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("nfpi.model.hub.snapshot_download", fail)
    with pytest.raises(OSError, match="No space"):
        ClassConditionalFlow.from_pretrained("own/model")
