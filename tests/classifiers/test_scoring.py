from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from timm.data import ImageNetInfo, RealLabelsImagenet

from nfpi.classifiers import Preprocessing, RealLabels, score_classifier
from nfpi.classifiers.scoring import find_real_labels
from nfpi.data import ImageSet, Pixels

CPU = torch.device("cpu")
SYNSETS = ImageNetInfo("imagenet-1k").label_names()


class Fixed(torch.nn.Module):
    """Logits that are written down beforehand, in the order of the images."""

    def __init__(self, logits: list[list[float]]) -> None:
        super().__init__()
        self.logits, self.seen = torch.tensor(logits), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += len(x)
        return self.logits[self.seen - len(x) : self.seen]


def images_of(labels: list[int], classes: list[str]) -> ImageSet:
    images = np.zeros((len(labels), 4, 4, 3), np.uint8)
    return ImageSet(images, np.array(labels), {"name": "toy", "classes": classes, "extra": {"flip": False}})


def test_top1_and_top5_count_by_hand():
    ranking = [6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0]  # class 0 first, class 6 last
    images = images_of([0, 4, 5, 6], list("abcdefg"))
    scores = score_classifier(Fixed([ranking] * 4), images, Preprocessing(), CPU)
    assert (scores.top1, scores.top5) == (25, 50)
    assert scores.real_top1 is None


def test_log_probabilities_and_labels_are_those_of_the_images_in_order(make_images):
    """In several batches; the accuracy follows from them."""
    images = make_images(per_class=401, noise=150)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    scores = score_classifier(model, images, Preprocessing(), CPU)
    assert (scores.log_prob.shape, scores.log_prob.dtype) == ((1203, 3), torch.float32)
    torch.testing.assert_close(scores.log_prob.exp().sum(1), torch.ones(1203))
    x = torch.from_numpy(images.images).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        torch.testing.assert_close(scores.log_prob, model(x).log_softmax(1))
    assert scores.labels.tolist() == images.labels.tolist()
    assert 100 * (scores.log_prob.argmax(1) == scores.labels).double().mean() == pytest.approx(scores.top1)


def test_large_images_come_in_small_batches(make_images):
    sizes = []

    class Noting(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            sizes.append(len(x))
            return torch.zeros(len(x), 3)

    score_classifier(Noting(), make_images((3, 448, 448), per_class=15), Preprocessing(), CPU)
    assert sizes == [41, 4]


def test_accuracy_is_measured_in_evaluation_mode(make_images):
    images = make_images()
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(1), torch.nn.Dropout(0.5), torch.nn.Flatten()).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    first, second = (score_classifier(model, images, Preprocessing(), CPU) for _ in range(2))
    assert first == second
    assert torch.equal(first.log_prob, second.log_prob)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


# ---- ImageNet-ReaL ------------------------------------------------------------------------------------------


def test_classes_that_a_model_lacks_are_not_among_its_five_best(tmp_path):
    (tmp_path / "real.json").write_text(json.dumps([[0], [1], [501]]))
    files = [f"ILSVRC2012_val_{index:08d}.JPEG" for index in (1, 2, 3)]
    real = RealLabels(files, SYNSETS[500:503], tmp_path / "real.json")
    real.add(torch.tensor([[3.0, 2.0, 1.0]] * 3))
    assert real.accuracy(1) == 0
    assert real.accuracy(5) == pytest.approx(100 / 3)


def test_real_labels_by_hand(tmp_path):
    """Any of an image's labels is right; an image without one is left out, on the usual labels it counts."""
    (tmp_path / "real.json").write_text(json.dumps([[2], [], [0, 3], [1]]))
    classes = SYNSETS[:7]
    logits = torch.zeros(4, 7)
    for row, ranking in enumerate([[2, 0], [0, 1], [3, 0], [0, 1]]):
        for place, k in enumerate(ranking):
            logits[row, k] = 10 - place
    files = [f"val/ILSVRC2012_val_{index:08d}.png" for index in (1, 2, 3, 4)]
    real = RealLabels(files, classes, tmp_path / "real.json")
    scores = score_classifier(
        Fixed(logits.tolist()), images_of([0, 0, 0, 1], classes), Preprocessing(), CPU, real_labels=real
    )
    assert scores.top1 == 25  # the second image
    assert scores.real_top1 == pytest.approx(100 * 2 / 3)  # 2 in [2], 3 in [0, 3], not 0 in [1]
    assert scores.real_top5 == 100


def test_labels_are_of_the_file_and_not_of_the_place(tmp_path):
    (tmp_path / "real.json").write_text(json.dumps([[0], [1]]))
    logits = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    for order, accuracy in (((2, 1), 100), ((1, 2), 0)):
        files = [f"ILSVRC2012_val_{index:08d}.JPEG" for index in order]
        real = RealLabels(files, SYNSETS[:2], tmp_path / "real.json")
        real.add(logits)
        assert real.accuracy(1) == accuracy


def test_logits_of_some_classes_are_of_those_synsets(tmp_path):
    """ReaL's labels count all 1000 synsets, a data set of fewer class folders only its own."""
    (tmp_path / "real.json").write_text(json.dumps([[999], [7]]))
    files = [f"ILSVRC2012_val_{index:08d}.JPEG" for index in (1, 2)]
    real = RealLabels(files, [SYNSETS[7], SYNSETS[999]], tmp_path / "real.json")
    real.add(torch.tensor([[-3.0, -2.0], [-2.0, -3.0]]))
    assert real.accuracy(1) == 100


def test_the_labels_that_timm_ships_are_those_of_the_validation_images():
    files = [f"ILSVRC2012_val_{index:08d}.JPEG" for index in range(1, 50_001)]
    labels = RealLabelsImagenet(files).real_labels
    chosen = [file for file in files if labels[file]][:200:7]
    real = RealLabels(chosen, SYNSETS)
    logits = torch.zeros(len(chosen), 1000)
    for row, file in enumerate(chosen):
        logits[row, labels[file][-1]] = 1
    real.add(logits)
    assert real.accuracy(1) == real.accuracy(5) == 100


@pytest.mark.parametrize(
    ("files", "classes", "message"),
    [
        (["n1_1.JPEG"], SYNSETS, "n1_1"),
        (["ILSVRC2012_val_00000001.JPEG"], ["cat"], "cat"),
    ],
)
def test_what_is_not_imagenets_is_refused(files, classes, message):
    with pytest.raises(ValueError, match=message):
        RealLabels(files, classes)


def test_real_labels_are_found_by_the_names_of_the_files(make_images, caplog, tmp_path):
    images = images_of([0, 1], SYNSETS[:2])
    names = np.array([f"n/ILSVRC2012_val_{index:08d}.JPEG" for index in (1, 2)])
    assert find_real_labels(Pixels(images, tmp_path, names)) is not None
    assert find_real_labels(Pixels(images)) is None
    assert "the names of the image files are not known" in caplog.text
