"""What a fitted flow says of images, and the images that it makes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nfpi import ClassConditionalFlow
from nfpi.data import ImageSet
from nfpi.evaluation import evaluate_flow
from nfpi.model import inference

from .conftest import SMALL


def test_it_tells_the_classes_apart(fitted, images, make_images):
    others = make_images(seed=5)
    assert (fitted.predict(others.images) == others.labels).mean() > 0.9
    assert fitted.classes == ["class0", "class1", "class2"]
    assert (fitted.shape, fitted.num_classes, fitted.device.type) == ((8, 8, 1), 3, "cpu")


def test_posteriors_are_those_of_equally_frequent_classes(fitted, images):
    log_prob = fitted.log_prob(images.images)
    posterior = fitted.predict_log_proba(images.images)
    assert log_prob.shape == posterior.shape == (60, 3)
    np.testing.assert_allclose(np.exp(posterior).sum(1), 1, atol=1e-12)
    np.testing.assert_allclose(posterior - posterior[:, :1], log_prob - log_prob[:, :1], atol=1e-8)
    assert (fitted.predict(images.images) == log_prob.argmax(1)).all()
    own = fitted.log_prob(images.images, images.labels)
    assert (own == log_prob[np.arange(60), images.labels]).all()
    named = fitted.log_prob(images.images, [fitted.classes[label] for label in images.labels])
    assert (named == own).all()


def test_log_prob_is_that_of_the_formula(fitted, images):
    """log p(x | y) = log N(f(x); μ_y, Σ_y) + log |det ∂f/∂x|, the determinant by autograd's Jacobian."""
    x = fitted.domain.to_flow(torch.from_numpy(images.images[:1]).permute(0, 3, 1, 2), None)
    x = x + inference.draw_fixed_noise(fitted.domain, fitted.flow.shape)
    jacobian = torch.autograd.functional.jacobian(lambda x: fitted.flow(x)[0].flatten(), x).reshape(64, 64)
    z = torch.from_numpy(fitted.encode(images.images[:1])).double()
    expected = fitted.prior.log_prob(z)[0] + torch.linalg.slogdet(jacobian.double()).logabsdet
    np.testing.assert_allclose(fitted.log_prob(images.images[:1])[0], expected.numpy(), rtol=1e-4)


def test_an_image_has_the_same_density_in_every_batch_and_at_every_time(fitted, images, monkeypatch):
    whole = fitted.log_prob(images.images)
    assert (fitted.log_prob(images.images) == whole).all()
    latents = fitted.encode(images.images)
    order = np.random.default_rng(0).permutation(60)
    np.testing.assert_allclose(fitted.log_prob(images.images[order]), whole[order], rtol=1e-5)
    for size in (1, 7):
        monkeypatch.setattr(inference, "_LARGEST_BATCH", size)
        np.testing.assert_allclose(fitted.log_prob(images.images), whole, rtol=1e-5)
        np.testing.assert_allclose(fitted.encode(images.images), latents, atol=1e-3)
        assert (fitted.decode(latents) == images.images).all()


def test_batches_have_bounded_numbers_of_pixels(make_images):
    sizes = {}
    for side in (8, 32, 64, 512, 4096):
        flow = torch.nn.Identity()
        flow.shape = (3, side, side)
        sizes[side] = inference.choose_batch_size(flow)
    assert sizes == {8: 1024, 32: 256, 64: 64, 512: 1, 4096: 1}


def test_bits_per_dim_are_those_of_the_classes_or_of_their_mixture(fitted, images):
    log_prob = fitted.log_prob(images.images)
    bits = fitted.bits_per_dim(images.images, images.labels)
    expected = -log_prob[np.arange(60), images.labels] / (64 * math.log(2)) + 7
    np.testing.assert_allclose(bits, expected, rtol=1e-12)
    mixture = -np.log(np.exp(log_prob - log_prob.max()).mean(1)) - log_prob.max()
    np.testing.assert_allclose(fitted.bits_per_dim(images.images), mixture / (64 * math.log(2)) + 7, rtol=1e-9)


def test_fixed_noise_does_not_bias_bits_per_dim(fitted, images):
    """Against the evaluation with random noise; the middle of the noise's range would be far off."""
    arguments = {"batch_size": 60, "domain": fitted.domain}
    random = [
        evaluate_flow(fitted.flow, fitted.prior, images, seed=seed, **arguments).bits_per_dim for seed in range(9)
    ]
    found = fitted.bits_per_dim(images.images, images.labels).mean()
    assert abs(found - np.mean(random)) < 0.15


def test_encoding_is_undone_by_decoding(fitted, images):
    latents = fitted.encode(images.images)
    assert (latents.shape, latents.dtype) == ((60, 64), np.float32)
    decoded = fitted.decode(latents)
    assert (decoded.shape, decoded.dtype) == ((60, 8, 8, 1), np.uint8)
    assert (decoded == images.images).all()
    assert (fitted.decode(latents.reshape(60, 1, 8, 8)) == decoded).all()


def test_samples_are_of_their_classes_and_follow_the_generator(fitted):
    labels = np.repeat([0, 1, 2], 10)

    def draw(seed: int, temperature: float = 0.5) -> np.ndarray:
        return fitted.sample(labels, temperature, torch.Generator().manual_seed(seed))

    drawn = draw(1)
    assert (drawn.shape, drawn.dtype) == ((30, 8, 8, 1), np.uint8)
    assert (fitted.predict(drawn) == labels).mean() > 0.9
    assert (draw(1) == drawn).all()
    assert (draw(2) != drawn).any()
    assert len(np.unique(draw(3, 0.0), axis=0)) == 3
    torch.manual_seed(4)
    first = fitted.sample(["class1", "class0"])
    torch.manual_seed(4)
    assert (fitted.sample([1, 0]) == first).all()
    with pytest.raises(ValueError, match=r"^temperature: .*-1"):
        fitted.sample([0], -1)


def test_variants_are_made_of_each_image_in_its_place(fitted, images):
    generator = torch.Generator().manual_seed(0)
    made = fitted.augment(images.images, images.labels, generator=generator, variants=2, strength=0.3)
    assert (made.shape, made.dtype) == ((60, 2, 8, 8, 1), np.uint8)
    assert (made[:, 0] != made[:, 1]).any()
    unchanged = fitted.augment(images.images, images.labels, variants=1, strength=0)
    assert (unchanged[:, 0] == images.images).all()
    with pytest.raises(ValueError, match="strenth"):
        fitted.augment(images.images, images.labels, strenth=0.3)
    with pytest.raises(ValueError, match="two images or more"):
        fitted.augment(images.images[:1], images.labels[:1])


def test_evaluation_says_how_well_it_does(fitted, held_out):
    found = fitted.evaluate(held_out.images, held_out.labels)
    right = fitted.predict(held_out.images) == held_out.labels
    assert found["n"] == 60
    assert found["nf_acc"] == pytest.approx(100 * right.mean())
    low, high = found["nf_acc_interval"]
    assert low <= found["nf_acc"] <= high
    assert found["bits_per_dim"] == pytest.approx(fitted.bits_per_dim(held_out.images, held_out.labels).mean())
    worst = {name: right[held_out.labels == index].mean() for index, name in enumerate(fitted.classes)}
    assert found["worst_class_acc"] == pytest.approx(100 * min(worst.values()))
    assert worst[found["worst_class"]] == min(worst.values())
    assert {name: scores["nf_acc"] for name, scores in found["classes"].items()} == {
        name: pytest.approx(100 * accuracy) for name, accuracy in worst.items()
    }
    assert found["nf_top5"] == 100
    assert 0 <= found["ece"] <= 100


def test_images_that_it_was_trained_on_are_left_out(fitted, images, held_out, caplog):
    both = np.concatenate([images.images[:9], held_out.images]), np.concatenate([images.labels[:9], held_out.labels])
    expected = fitted.evaluate(held_out.images, held_out.labels)
    assert not caplog.messages
    assert fitted.evaluate(*both) == {**expected, "left_out": 9}
    assert "9 of 69 images" in caplog.text
    temperatures = [
        fitted.calibrate(*given).calibration.temperature for given in (both, (held_out.images, held_out.labels))
    ]
    assert temperatures[0] == temperatures[1]
    for measure in (fitted.evaluate, fitted.calibrate):
        with pytest.raises(ValueError, match="60 of its training images"):
            measure(images.images, images.labels)
    refitted = fitted.refit(held_out.images, held_out.labels)
    with pytest.raises(ValueError, match="69 of its training images"):
        refitted.evaluate(*both)


def test_densities_that_are_not_finite_are_no_result(fitted, images):
    prior = type(fitted.prior)(fitted.prior.mean.clone(), fitted.prior.variance)
    prior.mean[1, 0] = math.nan
    with pytest.raises(FloatingPointError, match="for image 0"):
        ClassConditionalFlow(fitted.flow, prior, fitted.config).predict(images.images)


def test_colour_images_are_encoded_and_decoded(make_images):
    colour = make_images((3, 8, 12), classes=2)
    model = ClassConditionalFlow.fit(colour.images, colour.labels, flow=SMALL, epochs=2, weight=1, progress=False)
    assert (model.decode(model.encode(colour.images)) == colour.images).all()
    assert model.sample([0, 1]).shape == (2, 8, 12, 3)


def test_the_global_state_is_left_alone(fitted, images: ImageSet):
    fitted.flow.train()
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    fitted.predict(images.images)
    fitted.sample([0], generator=torch.Generator())
    fitted.augment(images.images, images.labels, generator=torch.Generator(), variants=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.is_grad_enabled()
    assert fitted.flow.training
    fitted.flow.eval()


def test_results_do_not_depend_on_the_state_that_the_caller_left_torch_in(fitted, images, state_of_caller):
    def compute() -> list[np.ndarray]:
        latents = fitted.encode(images.images)
        generators = [torch.Generator().manual_seed(1) for _ in range(2)]
        drawn = fitted.sample([0, 1, 2], 0.5, generators[0])
        variants = fitted.augment(images.images, images.labels, generator=generators[1], variants=1)
        return [latents, fitted.decode(latents), fitted.log_prob(images.images), drawn, variants]

    expected = compute()
    with state_of_caller:
        found = compute()
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        assert (one == other).all()
