"""What the Gaussians of any flow's latents say is what scipy and the model itself say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm
from zuko.flows import NSF

from nfpi import ClassConditionalFlow, diagnose, draw_diagnosis
from nfpi.priors import GaussianPrior

SCALE = torch.tensor([2.0, 0.5, 1.0])


def draw(count, seed=0):
    labels = torch.arange(count) % 3
    x = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x + 2 * torch.eye(3, dtype=torch.float64)[labels], labels


def scale(x):
    return x / SCALE, -SCALE.log().sum().expand(len(x))


def test_moments_of_a_linear_flow_are_gaussians_of_the_data():
    (x, labels), (test, test_labels) = draw(600), draw(300, seed=1)
    found = diagnose(scale, (x, labels), (test, test_labels))
    of_class = [x[labels == label].numpy() for label in range(3)]
    log_prob = np.stack([norm(c.mean(0), c.std(0, ddof=1)).logpdf(test.numpy()).sum(1) for c in of_class], 1)
    moments = found.iloc[0]
    assert (moments["gaussians"], moments["relative_weight"], moments["mismatch"]) == ("moments", 0, pytest.approx(0))
    assert moments["nf_acc"] == pytest.approx(100 * np.mean(log_prob.argmax(1) == test_labels.numpy()))
    nll = -log_prob[np.arange(300), test_labels].mean()
    assert moments["bits_per_dim"] == pytest.approx(nll / (3 * math.log(2)), rel=1e-6)
    fixed = found[found["gaussians"] == "fixed point"]
    assert fixed["relative_weight"].tolist() == [0.2, 1, 5]
    assert (fixed["separation"].diff().dropna() > 0).all()
    assert (fixed["mismatch"].diff().dropna() > 0).all()


@pytest.mark.parametrize("form", [lambda flow: flow, lambda flow: flow.transform, lambda flow: flow()])
def test_flows_of_zuko_are_taken_in_each_form(form):
    flow = NSF(3, transforms=1, hidden_features=[8])
    train, test = [(x.float(), labels) for x, labels in (draw(90), draw(60, seed=1))]
    expected = diagnose(lambda x: flow.transform().call_and_ladj(x), train, test, relative_weights=[])
    found = diagnose(form(flow), train, test, relative_weights=[])
    assert found.equals(expected)


class Normalised(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(3, affine=False, dtype=torch.float64)

    def forward(self, x):
        return self.norm(x), -self.norm.running_var.log().sum().expand(len(x)) / 2


def test_a_module_is_measured_in_evaluation_mode_and_stays_as_it_is():
    module, (train, test) = Normalised(), (draw(90), draw(60, seed=1))
    module(train[0])
    before = {name: value.clone() for name, value in module.state_dict().items()}
    found = diagnose(module, train, test, relative_weights=[])
    assert module.norm.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert found.equals(diagnose(module.eval(), train, test, relative_weights=[]))


def test_own_gaussians_of_a_model_are_measured_as_by_the_model(make_images):
    images, held_out = make_images(), make_images(seed=1)
    small = {"num_flows": [2, 1], "num_blocks": [1, 1], "hidden_channels": [8, 8]}
    model = ClassConditionalFlow.fit(images.images, images.labels, flow=small, epochs=5, progress=False)
    own = diagnose(model, (images.images, images.labels), (held_out.images, held_out.labels)).iloc[0]
    expected = model.evaluate(held_out.images, held_out.labels)
    assert own["gaussians"] == "own"
    assert own["nf_acc"] == pytest.approx(expected["nf_acc"], abs=5)
    assert own["bits_per_dim"] == pytest.approx(expected["bits_per_dim"], abs=0.05)  # another draw of the noise
    assert own["mismatch"] == pytest.approx(model.config["following"]["mismatch"], abs=0.05)


def test_a_model_of_an_autoencoders_latents_takes_them(make_images):
    images = make_images()
    small = {"num_flows": [1], "num_blocks": [1], "hidden_channels": [4]}
    model = ClassConditionalFlow.fit(images.images, images.labels, flow=small, epochs=1, progress=False)
    model.config["data"] |= {"dtype": "float16", "extra": {"scale": 1.0, "spread": np.ones(model.flow.shape).tolist()}}
    latents = np.random.default_rng(0).normal(size=images.images.shape).astype(np.float16)
    assert math.isfinite(diagnose(model, *[(latents, images.labels)] * 2).iloc[0]["bits_per_dim"])


def test_given_full_covariances_are_the_flows_own():
    train, test = draw(600), draw(300, seed=1)
    prior = GaussianPrior(torch.zeros(3, 3), covariance=torch.eye(3).expand(3, 3, 3).clone())
    own = diagnose(scale, train, test, prior=prior).iloc[0]
    assert own["gaussians"] == "own"
    assert own["separation"] == 0
    assert own["mismatch"] > 0.1


@pytest.mark.parametrize(
    ("flow", "message"),
    [
        (lambda x: (0 * x, 0 * x.sum(1)), "train: expected latents that vary within each of 3 classes"),
        (lambda x: (x, 0 * x), r"and log-determinants \(600,\), received \(600, 3\) and \(600, 3\)"),
        (lambda x: x, "received Tensor"),
        (lambda x: (x.log(), 0 * x.sum(1)), "finite latents and log-determinants of train"),
    ],
)
def test_a_wrong_flow_is_one_line(flow, message):
    with pytest.raises(ValueError, match=message) as error:
        diagnose(flow, draw(600), draw(300, seed=1))
    assert "\n" not in str(error.value)


def test_picture_has_a_line_through_the_fixed_points():
    figure = draw_diagnosis(diagnose(scale, draw(600), draw(300, seed=1)))
    lines = {line.get_label(): line.get_xdata().size for line in figure.axes[0].get_lines()}
    assert lines == {"moments": 1, "fixed point": 3}


def test_distribution_has_the_densities_of_the_gaussians():
    generator = torch.Generator().manual_seed(0)
    mean, root = torch.randn(2, 3, generator=generator), torch.randn(2, 3, 3, generator=generator)
    z = torch.randn(5, 3, generator=generator)
    for prior in (
        GaussianPrior(mean, variance=root[:, 0].square() + 0.1),
        GaussianPrior(mean, covariance=root @ root.mT + torch.eye(3)),
    ):
        found = prior.to_distribution().log_prob(z[:, None])
        torch.testing.assert_close(found, prior.log_prob(z).float(), rtol=1e-4, atol=1e-4)


def test_arrays_and_names_of_classes_are_taken():
    (x, labels), (test, test_labels) = draw(90), draw(60, seed=1)
    names = np.array(["ant", "bee", "cat"])
    flow = NSF(3, transforms=1, hidden_features=[8])
    expected = diagnose(flow, (x.float(), labels), (test.float(), test_labels), relative_weights=[])
    found = diagnose(flow, (x.numpy(), names[labels]), (test.numpy(), names[test_labels]), relative_weights=[])
    assert found.equals(expected)


def test_a_flow_may_return_arrays():
    pairs = draw(90), draw(60, seed=1)
    found = diagnose(lambda x: tuple(part.numpy() for part in scale(x)), *pairs, relative_weights=[])
    assert found.equals(diagnose(scale, *pairs, relative_weights=[]))


def test_labels_that_count_from_one_are_one_line():
    x, labels = draw(90)
    with pytest.raises(ValueError, match=r"4 classes \(labels count from 0\), .*class 0: .* received 0"):
        diagnose(scale, (x, labels + 1), (x, labels + 1))


def test_gaussians_of_other_classes_are_refused():
    prior = GaussianPrior(torch.zeros(2, 3), torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"prior: expected \(K, D\) = \(3, 3\) of train, received \(2, 3\)"):
        diagnose(scale, draw(60), draw(60), prior=prior)
