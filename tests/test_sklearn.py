"""The estimator keeps scikit-learn's contract, as far as images can be told from other data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn import calibration
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator
from torch.utils.data import TensorDataset

from nfpi.sklearn import FlowClassifier

SMALL = {"num_flows": [2], "num_blocks": [1], "hidden_channels": [8]}
QUICK = {"epochs": 3, "flow": SMALL, "weight": 10.0}


def test_all_checks_pass_on_vectors():
    rounded = {"check_methods_subset_invariance": "float32 rounds log p(x | y) by the size of the batch"}
    classifier = FlowClassifier(flow="identity", weight=10.0)
    done = check_estimator(classifier, expected_failed_checks=rounded, on_skip=None)
    assert sum(check["status"] == "passed" for check in done) > 50


def test_images_are_validated_in_folds_and_pipelines(images_of_classes):
    images, names = images_of_classes
    rows = images.reshape(len(images), -1)
    assert cross_val_score(FlowClassifier(**QUICK | {"epochs": 12}), images, names, cv=2).mean() > 0.8
    rounded = FunctionTransformer(lambda x: np.rint(x / 2) * 2)
    pipeline = make_pipeline(rounded, FlowClassifier((8, 8, 1), **QUICK))
    pipeline.fit(np.minimum(rows, 253).astype(float), names)
    assert set(pipeline.predict(np.minimum(rows, 253))) <= {"ant", "bee", "cat"}


def test_probabilities_are_those_of_the_model(images_of_classes):
    images, names = images_of_classes
    classifier = FlowClassifier(**QUICK).fit(images, names)
    assert classifier.classes_.tolist() == classifier.model_.classes == ["ant", "bee", "cat"]
    assert (classifier.predict_log_proba(images) == classifier.model_.predict_log_proba(images)).all()
    np.testing.assert_allclose(classifier.predict_proba(images).sum(1), 1)
    assert classifier.score(images, names) == np.mean(classifier.predict(images) == names)
    again = clone(classifier).fit(images[..., 0], names)
    assert (again.predict_log_proba(images) == classifier.predict_log_proba(images)).all()


def test_files_and_folders_are_their_pixels(images_of_classes, tmp_path):
    images, names = images_of_classes
    for index, (image, name) in enumerate(zip(images, names, strict=True)):
        (tmp_path / name).mkdir(exist_ok=True)
        Image.fromarray(image[..., 0]).save(tmp_path / name / f"{index:02d}.png")
    files = sorted(tmp_path.rglob("*.png"))
    labels = [file.parent.name for file in files]
    pixels = np.stack([np.asarray(Image.open(file)) for file in files])
    expected = FlowClassifier(**QUICK).fit(pixels, labels)
    classifier = FlowClassifier(**QUICK).fit(tmp_path)
    assert (classifier.predict_proba(tmp_path) == expected.predict_proba(pixels)).all()
    assert classifier.score(tmp_path) == classifier.score(files, labels) == expected.score(pixels, labels)
    Image.new("RGB", (9, 9)).save(tmp_path / "ant/large.png")
    classifier.model_.resize = True
    assert len(classifier.predict(tmp_path)) == 61
    assert 0 <= classifier.score(tmp_path) <= 1
    paths = np.array([str(file) for file in files])
    assert len(cross_val_score(FlowClassifier(**QUICK), paths, labels, cv=2, error_score="raise")) == 2


def test_labels_of_a_data_set_without_names_are_the_classes(images_of_classes):
    images, names = images_of_classes
    labels = np.array([7, 3, 5])[np.unique(names, return_inverse=True)[1]]
    data = TensorDataset(torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels))
    classifier = FlowClassifier(**QUICK).fit(data)
    assert classifier.classes_.tolist() == [3, 5, 7]
    assert classifier.score(data) == classifier.score(images, labels) > 0.5
    with pytest.raises(ValueError, match=r"^labels: expected one for each image"):
        classifier.score(TensorDataset(data.tensors[0]))


@pytest.mark.skipif(not hasattr(calibration, "_TemperatureScaling"), reason="scikit-learn before 1.8")
@pytest.mark.parametrize("classes", [2, 3])
def test_scikit_learn_finds_the_temperature_of_calibrate(images_of_classes, make_images, classes):
    images, names = images_of_classes
    known = np.isin(names, ["ant", "bee", "cat"][:classes])
    classifier = FlowClassifier(**QUICK).fit(images[known], names[known])
    held_out = make_images(seed=1)
    kept = held_out.labels < classes
    labels = np.where(np.arange(kept.sum()) % 7, held_out.labels[kept], 0)  # some are wrong
    classifier.model_ = classifier.model_.calibrate(held_out.images[kept], labels)
    temperature = classifier.model_.calibration.temperature
    theirs = calibration.CalibratedClassifierCV(FrozenEstimator(classifier), method="temperature")
    theirs.fit(held_out.images[kept], classifier.classes_[labels])
    (found,) = theirs.calibrated_classifiers_
    assert 1 / found.calibrators[0].beta_ == pytest.approx(temperature, rel=1e-4)
    np.testing.assert_allclose(theirs.predict_proba(images[known]), classifier.predict_proba(images[known]), atol=1e-6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((6, 8, 8, 1), 0.5), "X: expected whole numbers from 0 to 255, received float64 from 0.5 to 0.5"),
        (np.full((6, 8, 8, 1), 256), "received int64 from 256 to 256"),
        (
            np.full((6, 64), 1),
            "vectors: expected columns that vary, received 1 ± 0 in column 0 (64 such columns",
        ),
    ],
)
def test_what_is_no_image_is_refused(values, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011, the message is compared
        FlowClassifier(**QUICK).fit(values, [0, 1, 0, 1, 0, 1])
    assert message in str(error.value)


@pytest.fixture(scope="module")
def images_of_classes(make_images):
    images = make_images()
    return images.images, np.array(["ant", "bee", "cat"])[images.labels]
