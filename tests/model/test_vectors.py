"""Vectors instead of images: (N, D) numbers are standardised, fitted, measured and drawn; what is wrong is one line."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm

from nfpi import ClassConditionalFlow

FLOW = {"kind": "zuko", "num_flows": 2, "hidden_features": [16]}
NAMES = ["calm", "wild"]


def draw(count, seed=0):
    """Vectors of two classes on elements of very different scales."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    noise = generator.normal(size=(count, 3)) * (1 + labels[:, None])
    return np.array([1e3, 0, -5]) + np.array([100, 0.01, 1]) * (noise + 3 * labels[:, None]), labels


@pytest.fixture(scope="module")
def model():
    vectors, labels = draw(400)
    return ClassConditionalFlow.fit(vectors, np.array(NAMES)[labels], flow=FLOW, epochs=10, progress=False)


def test_vectors_are_classified_and_drawn_on_their_own_scale(model):
    vectors, labels = draw(300, seed=1)
    assert model.evaluate(vectors, labels)["nf_acc"] > 90
    drawn = model.sample(np.repeat([0, 1], 500), generator=torch.Generator().manual_seed(0))
    assert drawn.shape == (1000, 3)
    for label in (0, 1):
        assert drawn[500 * label :][:500].mean(0) == pytest.approx(vectors[labels == label].mean(0), rel=0.3, abs=0.01)
    np.testing.assert_allclose(model.decode(model.encode(vectors)), vectors, rtol=1e-4, atol=1e-4)
    assert model.augment(vectors, labels, variants=2).shape == (300, 2, 3)


@pytest.mark.parametrize("convert", [torch.from_numpy, pd.DataFrame, np.float32])
def test_tensors_and_data_frames_are_the_same_vectors(model, convert):
    vectors, _ = draw(20, seed=1)
    np.testing.assert_allclose(model.log_prob(convert(vectors)), model.log_prob(vectors), rtol=1e-5)


def test_model_is_the_same_again_from_its_files(model, tmp_path):
    vectors, labels = draw(50, seed=1)
    calibrated = model.calibrate(vectors, labels)
    calibrated.save_pretrained(tmp_path / "model")
    again = ClassConditionalFlow.from_pretrained(tmp_path / "model")
    np.testing.assert_array_equal(again.predict_proba(vectors), calibrated.predict_proba(vectors))


def test_identity_without_noise_has_the_density_of_class_moments():
    """λ = 0: a product of normal densities of the standardised vectors, in nats, and its bits per dimension."""
    vectors, labels = draw(400)
    options = {"flow": "identity", "weight": 0.0, "training": {"latent_noise": 0.0}, "progress": False}
    model = ClassConditionalFlow.fit(vectors, labels, **options)
    standardised = (vectors - vectors.mean(0)) / vectors.std(0)
    of_class = [standardised[labels == label] for label in (0, 1)]
    expected = np.stack([norm(x.mean(0), x.std(0, ddof=1)).logpdf(standardised).sum(1) for x in of_class], 1)
    np.testing.assert_allclose(model.log_prob(vectors), expected, rtol=1e-4, atol=1e-4)
    bits = -expected[np.arange(400), labels] / (3 * math.log(2))
    np.testing.assert_allclose(model.bits_per_dim(vectors, labels), bits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: np.where(x == x[3, 1], np.nan, x), r"expected finite numbers, received nan at \(3, 1\)"),
        (lambda x: np.where(x == x[3, 1], np.inf, x), "expected finite numbers, received inf"),
        (lambda x: x[:, :2], r"expected \(N, 3\), received \(20, 2\)"),
        (lambda x: x[0], r"expected \(N, 3\), received \(3,\)"),
        (lambda x: x.astype(str), "expected real numbers, none of them missing, received <U32"),
    ],
)
def test_other_vectors_are_refused_by_a_model(model, change, message):
    with pytest.raises(ValueError, match=message):
        model.predict(change(draw(20)[0]))


def test_constant_columns_are_refused_by_a_fit():
    vectors, labels = draw(20)
    vectors[:, 1] = 7
    with pytest.raises(ValueError, match="columns that vary, received 7 ± 0 in column 1"):
        ClassConditionalFlow.fit(vectors, labels, progress=False)


def test_vectors_are_held_out_for_validation():
    vectors, labels = draw(100)
    options = {"flow": "identity", "progress": False}
    for validation in (0.2, draw(20, seed=1)):
        model = ClassConditionalFlow.fit(vectors, labels, validation=validation, **options)
        assert model.config["validation"]["n"] == 20
    with pytest.raises(ValueError, match=r"validation vectors: expected \(N, 3\), received \(20, 2\)"):
        ClassConditionalFlow.fit(vectors, labels, validation=(draw(20)[0][:, :2], draw(20)[1]), **options)


def test_columns_of_a_data_frame_are_those_of_the_training(model):
    vectors, labels = draw(100)
    frame = pd.DataFrame(vectors, columns=["a", "b", "c"])
    fitted = ClassConditionalFlow.fit(frame, labels, flow="identity", progress=False)
    assert (fitted.predict(frame) == fitted.predict(vectors)).all()
    with pytest.raises(ValueError, match="expected the columns a, b, c, received c, b, a"):
        fitted.predict(frame[["c", "b", "a"]])
    mixed = frame.assign(b=frame["b"] > 0, c=frame["c"].astype("Float64"))
    assert len(ClassConditionalFlow.fit(mixed, labels, flow="identity", progress=False).predict(mixed.iloc[:3])) == 3


def test_lists_of_numbers_are_vectors(model):
    vectors, labels = draw(100)
    fitted = ClassConditionalFlow.fit(vectors.tolist(), labels, flow="identity", progress=False)
    assert fitted.predict(vectors[:3].tolist()).shape == (3,)


def test_vectors_that_occur_in_the_training_are_measured(model):
    vectors, labels = draw(50)
    found = model.evaluate(vectors, labels)
    assert (found["n"], found["left_out"]) == (50, 0)


def test_card_speaks_of_vectors(model, tmp_path):
    model.save_pretrained(tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert "Vectors: 3 numbers" in text
    assert "numbers (N, 3)" in text
    assert "latents of an autoencoder" not in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flow": "glow"}, "expected zuko, identity or a flow of your own for vectors, received glow"),
        ({"validation": pd.DataFrame([[1, 2]])}, "validation: expected a share of the images, .* received DataFrame"),
    ],
)
def test_what_does_not_fit_vectors_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        ClassConditionalFlow.fit(*draw(40), progress=False, **change)


def test_columns_that_float32_does_not_resolve_are_refused():
    vectors, labels = draw(40)
    with pytest.raises(ValueError, match=r"received 1e\+06 ± .* in column 1 .*subtract the means"):
        ClassConditionalFlow.fit(vectors + np.array([0, 1e6, 0]), labels, progress=False)
