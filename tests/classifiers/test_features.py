"""Features of images, and their distances, which are those of torch-fidelity."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import linalg

from nfpi.classifiers import Inception, LoadedClassifier, compare_features
from nfpi.classifiers.features import draw_images
from nfpi.classifiers.preprocessing import Preprocessing
from nfpi.classifiers.registry import build_classifier
from nfpi.config.classifiers import ClassifierConfig
from nfpi.config.flows import QualityConfig
from nfpi.runtime.formats import FormatError
from nfpi.runtime.randomness import make_generator

HEADER = {"size": {"num_classes": 3, "in_channels": 1, "image_size": 8}}
CPU = torch.device("cpu")
SETTINGS = QualityConfig(neighbors=2, kid_subsets=3, kid_subset_size=20)


@pytest.fixture(scope="module")
def fidelity():
    return pytest.importorskip("torch_fidelity")


@pytest.fixture(scope="module")
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = make_generator("cpu", 0, "features")
    return torch.randn(60, 8, generator=generator), 1.5 * torch.randn(50, 8, generator=generator) + 0.5


@pytest.fixture(scope="module")
def classifier() -> LoadedClassifier:
    torch.manual_seed(0)
    model = build_classifier(ClassifierConfig(), num_classes=3, in_channels=1, image_size=8)
    return LoadedClassifier(model, ClassifierConfig(), Preprocessing(), HEADER, CPU)


# ---- distances ----------------------------------------------------------------------------------------------


def test_fid_is_its_formula(fidelity, pair):
    first, second = (features.double().numpy() for features in pair)
    gap, covariances = first.mean(0) - second.mean(0), [np.cov(each, rowvar=False) for each in (first, second)]
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = gap @ gap + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert compare_features(*pair, SETTINGS)["fid"] == pytest.approx(expected)


def test_precision_is_of_the_generated_images_and_recall_of_the_real_ones(fidelity, pair):
    """Real images that are far apart have large neighbourhoods, in which generated ones lie."""
    generated, real = pair
    found = compare_features(generated, 10 * real, SETTINGS)
    assert found["precision"] > 0.9
    assert found["recall"] < 0.1


def test_equal_sets_are_at_no_distance(fidelity, pair):
    found = compare_features(pair[0], pair[0], SETTINGS)
    assert found["fid"] == pytest.approx(0, abs=1e-9)
    assert abs(found["kid"]) < 0.1 * compare_features(*pair, SETTINGS)["kid"]
    assert (found["precision"], found["recall"]) == (1, 1)


# ---- networks -----------------------------------------------------------------------------------------------


def test_features_of_a_classifier_are_what_its_last_layer_makes_logits_of(classifier, make_images):
    images = make_images()
    features = classifier.extract_features(images)
    assert features.shape == (60, classifier.num_features) == (60, 512)
    with torch.no_grad():
        logits = classifier.model.fc(features)
    scores = classifier.score(images)
    torch.testing.assert_close(logits.log_softmax(1), scores.log_prob)


def test_inception_reads_a_file_of_weights_and_takes_grey_images(fidelity, make_images, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url",
        lambda *_, **__: pytest.fail("expected no download"),
    )
    torch.manual_seed(0)
    with monkeypatch.context() as context:  # the network has no other way to random weights
        context.setattr(fidelity.FeatureExtractorInceptionV3, "load_state_dict", lambda self, weights: None)
        path = tmp_path / "weights.pth"
        torch.save({}, path)
        network = fidelity.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(path))
    torch.save(network.state_dict(), path)
    grey = make_images((1, 8, 8), per_class=1)
    features = Inception.read(path, CPU).extract_features(grey)
    assert features.shape == (3, Inception.num_features)
    pixels = torch.from_numpy(grey.images).permute(0, 3, 1, 2).repeat(1, 3, 1, 1)
    torch.testing.assert_close(features, network(pixels)[0])


@pytest.mark.parametrize("content", [{"weight": torch.zeros(2)}, [print]])
def test_other_weights_are_refused_in_one_line(fidelity, content, tmp_path):
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(FormatError, match=r"weights\.pth: expected") as caught:
        Inception.read(tmp_path / "weights.pth", CPU)
    assert "\n" not in str(caught.value)


def test_images_are_drawn_by_the_seed_in_their_order(make_images):
    images = make_images()
    numbered = type(images)(np.arange(60).reshape(60, 1, 1, 1), images.labels, images.meta)
    first, again, other = (draw_images(numbered, 20, seed).images.ravel().tolist() for seed in (0, 0, 1))
    assert first == again == sorted(set(first))
    assert len(first) == 20
    assert first != other
    assert draw_images(numbered, 60, 0).images.ravel().tolist() == list(range(60))
