"""What a run that is resumed must agree in."""

from __future__ import annotations

from pathlib import Path

from nfpi.config.classifiers import CLASSIFIERS
from nfpi.config.extensions import compute_code_digest, load_extensions
from nfpi.config.flows import FLOWS

CLASSIFIER = """
from nfpi.classifiers import register_classifier
from nfpi.config.base import Settings

@register_classifier("of_a_file", Settings)
def of_a_file(num_classes, in_channels, image_size, settings):
    ...
"""


def test_the_projects_code_has_no_digest() -> None:
    assert compute_code_digest(FLOWS["matrix_exponential"]) == compute_code_digest(CLASSIFIERS["resnet18"]) == ""


def test_a_changed_file_is_another_code(tmp_path: Path) -> None:
    file = tmp_path / "classifier.py"
    digests = []
    for content in (CLASSIFIER, CLASSIFIER, CLASSIFIER.replace("...", "return None")):
        file.write_text(content)
        load_extensions([file])
        digests.append(compute_code_digest(CLASSIFIERS["of_a_file"]))
    load_extensions([])
    assert digests[0] == digests[1] != digests[2]
