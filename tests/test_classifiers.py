from __future__ import annotations

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from nfpi.classifiers import TrainedClassifier, classifier_accuracy, joined, small_image_resnet18, train_classifier
from nfpi.classifiers.training import normalized
from nfpi.config import ClassifierConfig
from nfpi.data import ImageSet
from nfpi.devices import make_fabric

CONFIG = ClassifierConfig(epochs=3, batch_size=16, max_learning_rate=0.05, crop_padding=1)


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    return make_fabric()


class Small(torch.nn.Module):
    """A network that trains in no time."""

    def __init__(self, channels: int = 1, classes: int = 3, size: int = 64) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Conv2d(channels, 8, 3, padding=1),
            torch.nn.BatchNorm2d(8),
            torch.nn.ReLU(),
            torch.nn.Flatten(),
            torch.nn.Linear(8 * size, classes),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def train(fabric: Fabric, images: ImageSet, validation: ImageSet, seed: int = 0, **changes) -> TrainedClassifier:
    torch.manual_seed(0)
    config = ClassifierConfig(**(CONFIG.model_dump() | changes))
    return train_classifier(Small(), images, validation, config, seed, fabric)


# ---- the network --------------------------------------------------------------------------------------------


def test_resnet18_has_the_papers_size():
    parameters = sum(p.numel() for p in small_image_resnet18(10, 3).parameters())
    assert round(parameters / 1e6, 2) == 11.17


@pytest.mark.parametrize(("channels", "classes"), [(1, 3), (3, 100)])
def test_the_stem_keeps_the_size_of_small_images(channels, classes):
    model = small_image_resnet18(classes, channels).eval()
    sizes = []
    model.layer1.register_forward_pre_hook(lambda _, received: sizes.append(received[0].shape))
    with torch.no_grad():
        logits = model(torch.randn(2, channels, 8, 8))
    assert logits.shape == (2, classes)
    assert sizes == [(2, 64, 8, 8)]


def test_it_learns_a_small_set_by_heart(make_images, fabric):
    images = make_images((1, 8, 8), classes=3, per_class=8, noise=60)
    torch.manual_seed(0)
    config = ClassifierConfig(epochs=10, batch_size=8, max_learning_rate=0.02, crop_padding=0)
    trained = train_classifier(small_image_resnet18(3, 1), images, images, config, 0, fabric)
    assert trained.validation_acc == 100
    assert trained.log[-1]["train_loss"] < 0.2 < trained.log[0]["train_loss"]


# ---- the loop -----------------------------------------------------------------------------------------------


def test_a_seed_gives_one_classifier(make_images, fabric):
    images, validation = make_images(noise=150), make_images(noise=150, seed=1)
    one, same, other = (train(fabric, images, validation, seed) for seed in (0, 0, 1))
    assert one.log == same.log
    assert one.log != other.log
    for left, right in zip(one.model.state_dict().values(), same.model.state_dict().values(), strict=True):
        assert torch.equal(left, right)


def test_the_learning_rate_makes_one_cycle_and_the_momentum_stays(make_images, fabric, monkeypatch):
    rates = []
    momenta = set()
    step = torch.optim.SGD.step

    def note(optimizer: torch.optim.SGD, *arguments: object, **options: object) -> object:
        rates.append(optimizer.param_groups[0]["lr"])
        momenta.add(optimizer.param_groups[0]["momentum"])
        return step(optimizer, *arguments, **options)

    monkeypatch.setattr(torch.optim.SGD, "step", note)
    images = make_images()
    train(fabric, images, images, epochs=10, learning_rate=1e-3, max_learning_rate=0.1, momentum=0.7)
    assert momenta == {0.7}
    assert len(rates) == 10 * 4
    assert rates[0] == pytest.approx(1e-3)
    peak = rates.index(max(rates))
    assert rates[peak] == pytest.approx(0.1, rel=0.02)
    assert peak == pytest.approx(0.3 * 40, abs=1)  # three tenths up, the rest down
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] < 1e-4


@pytest.mark.parametrize("batch_size", [21, 12, 2])
def test_the_training_loss_is_a_mean_over_images(make_images, fabric, batch_size):
    """With a rate too small to move anything; the last batch may be smaller than the others."""
    images = make_images(per_class=8)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    rates = {"learning_rate": 1e-30, "max_learning_rate": 1e-29}
    config = ClassifierConfig(epochs=1, batch_size=batch_size, crop_padding=0, **rates)
    trained = train_classifier(model, images, images, config, 0, fabric)
    x = torch.from_numpy(images.images).permute(0, 3, 1, 2)
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(model(normalized(x)), torch.from_numpy(images.labels))
    assert trained.log[0]["train_loss"] == pytest.approx(float(loss), rel=1e-5)


def test_accuracy_counts_every_image_once(make_images):
    images = make_images(per_class=401, noise=5)  # in more than one batch

    class Constant(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tensor([0.0, 1.0, 0.5]).expand(len(x), 3)

    assert classifier_accuracy(Constant(), images, torch.device("cpu")) == pytest.approx(100 / 3)


def test_accuracy_is_measured_in_evaluation_mode(make_images, fabric):
    images = make_images()
    model = train(fabric, images, images).model
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.train()
    classifier_accuracy(model, images, torch.device("cpu"))
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_bytes_become_the_interval_from_minus_one_to_one():
    assert normalized(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1, 1]


@pytest.mark.parametrize("per_class", [3, 11])
def test_a_last_batch_of_one_image_is_no_obstacle(make_images, fabric, per_class):
    """ResNet18 leaves one pixel of an image of 8×8, and one value has no variance to normalise by."""
    images = make_images(classes=3, per_class=per_class)
    batch_size = 3 * per_class - 1
    config = ClassifierConfig(epochs=1, batch_size=batch_size, crop_padding=0)
    trained = train_classifier(small_image_resnet18(3, 1), images, images, config, 0, fabric)
    assert trained.log[0]["train_loss"] == pytest.approx(np.log(3), abs=1)  # its loss is not counted either


def test_a_loss_that_is_not_finite_names_the_knob(make_images, fabric):
    images = make_images()
    with pytest.raises(ArithmeticError, match=r"not finite in epoch \d.*max_learning_rate \(now 1e\+30\)") as error:
        train(fabric, images, images, learning_rate=1e29, max_learning_rate=1e30)
    assert "\n" not in str(error.value)


# ---- real and generated images together ---------------------------------------------------------------------


def test_joined_sets_have_all_images_with_their_labels(make_images):
    first, second = make_images(per_class=5), make_images(per_class=3, seed=1)
    both = joined(first, second)
    assert len(both) == 24
    assert both.shape == first.shape
    assert (both.images[:15] == first.images).all()
    assert (both.labels[15:] == second.labels).all()
    assert both.classes == first.classes
    assert both.meta["extra"]["flip"] is False


@pytest.mark.parametrize(
    ("shape", "classes", "message"),
    [
        ((3, 8, 8), 3, r"expected \(1, 8, 8\) and 3 classes in both, received \(3, 8, 8\) and 3"),
        ((1, 8, 4), 3, r"received \(1, 8, 4\) and 3"),
        ((1, 8, 8), 4, r"received \(1, 8, 8\) and 4"),
    ],
)
def test_sets_that_do_not_fit_are_refused(make_images, shape, classes, message):
    with pytest.raises(ValueError, match=message):
        joined(make_images(), make_images(shape, classes=classes))


def test_sets_whose_classes_are_called_otherwise_are_refused(make_images):
    first, second = make_images(), make_images()
    renamed = ImageSet(second.images, second.labels, second.meta | {"classes": ["class1", "class0", "class2"]})
    with pytest.raises(ValueError, match="expected the classes"):
        joined(first, renamed)
