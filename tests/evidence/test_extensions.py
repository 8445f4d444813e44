"""Which runs use an extension file: those whose data set, flow, prior, classifier or metrics it defines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nfpi.config.extensions import load_extensions
from nfpi.config.settings import Config
from nfpi.evidence.extensions import describe_changed_extensions
from nfpi.results.recorded.runs import RecordedRun
from nfpi.runs import Run

FILES = {
    "dataset": "from nfpi.data import register_source\nregister_source('own')(lambda config, download_folder: None)\n",
    "flow": "from nfpi.flows import register_flow\nregister_flow('own')(lambda shape, settings: None)\n",
    "prior": "from nfpi.priors import register_prior\n"
    "register_prior('own')(lambda statistics, initial, weight, settings: None)\n",
    "classifier": "from nfpi.classifiers import register_classifier\n"
    "register_classifier('own')(lambda num_classes, in_channels, image_size, settings: None)\n",
    "metric": "from nfpi.results import register_metric\n"
    "register_metric('own', lambda log_prob, labels: 0.5, label='Own')\n",
}
"""By what it registers under the name `own`."""
BUILT_IN = Run(dataset="digits", seed=0, flow="mef", prior="fpi", weight=1e4, classifier="resnet18")
USERS = {
    "dataset": {"dataset": "mine"},
    "flow": {"flow": "mine"},
    "prior": {"prior": "mine"},
    "classifier": {"classifier": "mine"},
    "metric": {},
}


@pytest.fixture
def loaded(tmp_path: Path) -> Iterator[dict[str, Path]]:
    """The loaded files."""
    files = {name: tmp_path / f"{name}.py" for name in FILES}
    for name, file in files.items():
        file.write_text(FILES[name])
    load_extensions(files.values())
    yield files
    load_extensions([])


@pytest.mark.parametrize("used", FILES)
def test_only_runs_that_use_a_file_are_compared_with_it(loaded, used, tmp_path):
    config = Config.model_validate(
        {
            "datasets": {"digits": {}, "mine": {"source": "own", "folder": str(tmp_path)}},
            "flows": {"mef": {}, "mine": {"kind": "own"}},
            "priors": {"fpi": {}, "mine": {"method": "own"}},
            "classifiers": {"resnet18": {}, "mine": {"model": "own"}},
        }
    )
    made_with = {"versions": {file.name: "an-old-digest" for file in loaded.values()}}
    metrics = {"cnn_acc": 90.0} | ({"cnn_own": 0.5} if used == "metric" else {})
    user = RecordedRun(replace(BUILT_IN, **USERS[used]), tmp_path, made_with | {"metrics": metrics})
    other = RecordedRun(BUILT_IN, tmp_path, made_with | {"metrics": {"cnn_acc": 90.0}})
    forgotten = RecordedRun(Run(dataset="gone", seed=0, flow="gone", prior="gone", weight=0.0), tmp_path, made_with)
    (line,) = describe_changed_extensions([user, other, forgotten], config)
    expected = "expected the file of the runs that use it, with digest an-old-digest (1 of 1 runs), received digest "
    assert line.startswith(f"{used}.py: {expected}")
