"""Features of a trained classifier as a data set, and classifiers of vectors."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from nfpi.classifiers import LoadedClassifier
from nfpi.data.store import convert_images, read_image_set

from .conftest import call, check_call, format_options, read_error_line, read_json

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def features(complete_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("features") / "splits"
    check_call(*complete_run.make_command("extract-features", output=folder))
    return folder


def test_features_are_the_inputs_of_the_classifiers_last_layer(complete_run, features):
    classifier = LoadedClassifier.read(complete_run.reference / "model.safetensors", CPU)
    for split in ("train", "validation", "test"):
        images, found = (read_image_set(folder / split) for folder in (complete_run.splits, features))
        vectors = torch.from_numpy(np.array(found.images)).flatten(1)
        expected = classifier.model.eval()(images_to_inputs(images)).log_softmax(1)
        torch.testing.assert_close(classifier._last_layer(vectors).log_softmax(1), expected, atol=1e-4, rtol=1e-4)
        np.testing.assert_array_equal(found.labels, images.labels)
    assert read_image_set(features / "train").classes == images.classes


def images_to_inputs(images):
    return torch.from_numpy(np.array(images.images)).permute(0, 3, 1, 2) / 127.5 - 1


def test_a_classifier_that_was_trained_on_other_splits_is_refused_unless_its_data_set_is_named(
    complete_run, tmp_path, capsys
):
    other = tmp_path / "other"
    check_call(*complete_run.make_command("prepare-data", dataset={"split_seed": 9}, output=other))
    assert call(*complete_run.make_command("extract-features", data=other, output=tmp_path / "new")) == 1
    assert "expected the same data" in read_error_line(capsys)
    named = {"dataset": "other", "classifier": "resnet18_real", "trained_on": "digits"}
    dataset = {"source": "features", "features": named}
    check_call(*complete_run.make_command("extract-features", data=other, dataset=dataset, output=tmp_path / "new"))


def test_features_of_images_without_a_validation_split_have_none(complete_run, tmp_path):
    data, folder = tmp_path / "data", tmp_path / "features"
    check_call(*complete_run.make_command("prepare-data", dataset={"refit": True}, output=data))
    named = {"dataset": "other", "classifier": "resnet18_real", "trained_on": "digits"}
    dataset = {"source": "features", "features": named}
    check_call(*complete_run.make_command("extract-features", data=data, dataset=dataset, output=folder))
    for split in ("train", "validation", "test"):
        images, found = (read_image_set(parent / split) for parent in (data, folder))
        np.testing.assert_array_equal(found.labels, images.labels)


def test_unknown_images_have_the_size_of_the_training_images_before_their_features_are_computed(complete_run):
    classifier = LoadedClassifier.read(complete_run.reference / "model.safetensors", CPU)
    test = read_image_set(complete_run.splits / "test")
    large = convert_images(test, (3, 28, 28))
    again = convert_images(large, test.shape)
    torch.testing.assert_close(classifier.extract_features(large), classifier.extract_features(again))


@pytest.mark.parametrize("model", ["softmax", "lda", "qda"])
def test_classifiers_of_vectors_are_fitted_to_standardised_ones(features, tmp_path, model):
    train, test = (read_image_set(features / split) for split in ("train", "test"))
    options = {"data": features, "classifier": {"model": model, "train_on": "real", "epochs": 0}, "name": model}
    check_call("train-classifier", *format_options(**options, augmentation="none", seed=0, output=tmp_path / "model"))
    check_call("test-classifier", tmp_path / "model", *format_options(data=features, output=tmp_path / "test"))
    metrics = read_json(tmp_path / "test/metrics.json")["metrics"]
    assert metrics["top1"] > 30
    assert ("bits_per_dim" in metrics) is (model == "qda")
    loaded = LoadedClassifier.read(tmp_path / "model/model.safetensors", CPU)
    mean, std = (np.array(train.meta["extra"][name]) for name in ("mean", "std"))
    np.testing.assert_allclose(np.array(train.images).mean((0, 1, 2)), mean, rtol=1e-4, atol=1e-4)
    x = [(np.array(some.images).reshape(len(some), -1) - mean) / std for some in (train, test)]
    if model == "softmax":
        expected = LogisticRegression(max_iter=1000).fit(x[0], train.labels).predict_log_proba(x[1])
        np.testing.assert_allclose(loaded.score(test).log_prob.numpy(), expected, atol=0.02)
    if model == "qda":  # without noise, the density of standardised vectors
        inputs = torch.from_numpy(x[1]).float()[:, :, None, None]
        own = loaded.model(inputs).gather(1, torch.from_numpy(np.array(test.labels))[:, None])
        assert metrics["bits_per_dim"] == pytest.approx(-own.mean().item() / (512 * math.log(2)), abs=0.1)


def test_images_augmentations_are_refused_for_vectors(features, tmp_path, capsys):
    options = {"data": features, "classifier": {"train_on": "real"}, "name": "resnet18", "seed": 0}
    assert call("train-classifier", *format_options(**options, augmentation="standard", output=tmp_path / "new")) == 1
    assert "augmentation none and image_size null, received standard" in read_error_line(capsys)


def test_vectors_of_another_length_are_no_unknown_images_of_these(features, tmp_path, capsys):
    vectors = read_image_set(features / "test")
    with pytest.raises(ValueError, match="expected 5 columns, received 512"):
        convert_images(vectors, (5, 1, 1))
    assert json.loads((features / "test/meta.json").read_text())["extra"]["source"] == "features"
