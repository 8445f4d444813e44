from __future__ import annotations

import math
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from nfpi.classifiers import (
    BatchAugmentation,
    ClassifierData,
    ClassifierTraining,
    Variants,
    build_classifier,
    train_classifier,
)
from nfpi.config.classifiers import ClassifierConfig, StandardAugmentation
from nfpi.config.resolution import resolve
from nfpi.data import ImageSet
from nfpi.runtime.checkpoints import Checkpoints
from nfpi.runtime.device import Device, make_device
from nfpi.runtime.divergence import TrainingDiverged
from nfpi.training.optimizers import make_schedule

ROOT = Path(__file__).resolve().parents[2]
TINY_EVA02 = {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "drop_path_rate": 0.3}
CONFIG = ClassifierConfig(epochs=3, batch_size=16, max_learning_rate=0.05, standard={"crop_padding": 1})


@pytest.fixture(scope="module")
def device() -> Device:
    return make_device()


def resnet18() -> torch.nn.Module:
    """For three classes of grey images."""
    return build_classifier(ClassifierConfig(), 3, 1, 8)


class Small(torch.nn.Module):
    """A network that trains in no time, with buffers and with randomness of its own."""

    def __init__(self, channels: int = 1, classes: int = 3, size: int = 64) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Conv2d(channels, 8, 3, padding=1),
            torch.nn.BatchNorm2d(8),
            torch.nn.ReLU(),
            torch.nn.Dropout(0.1),
            torch.nn.Flatten(),
            torch.nn.Linear(8 * size, classes),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def train(
    device: Device,
    images: ImageSet,
    validation: ImageSet,
    seed: int = 0,
    *,
    model: torch.nn.Module | None = None,
    variants: Variants | None = None,
    folder: Path | None = None,
    **changes: object,
) -> ClassifierTraining:
    torch.manual_seed(0)
    config = ClassifierConfig(**(CONFIG.model_dump() | changes))
    data = ClassifierData(images, validation, config, standard=config.standard, variants=variants)
    checkpoints = Checkpoints(folder, "f", config.checkpoint_minutes) if folder is not None else None
    return train_classifier(model or Small(images.shape[0]), data, seed, device, checkpoints)


def assert_same(one: ClassifierTraining, other: ClassifierTraining) -> None:
    assert one.state.log == other.state.log
    assert one.validation_acc == other.validation_acc
    for (name, left), right in zip(
        one.state.module.state_dict().items(), other.state.module.state_dict().values(), strict=True
    ):
        assert torch.equal(left, right), name


# ---- the loop -----------------------------------------------------------------------------------------------


def test_it_learns_a_small_set_by_heart(make_images, device):
    images = make_images((1, 8, 8), classes=3, per_class=8, noise=60)
    torch.manual_seed(0)
    model = resnet18()
    rates = {"batch_size": 8, "max_learning_rate": 0.02}
    trained = train(device, images, images, model=model, epochs=16, standard={"crop_padding": 0}, **rates)
    assert trained.validation_acc == 100
    assert trained.state.log[-1]["train_loss"] < 0.2 < trained.state.log[0]["train_loss"]


@pytest.mark.parametrize(
    ("model", "architecture"),
    [
        ("swin", {"embed_dim": 12, "depths": [1, 1], "num_heads": [1, 2]}),
        ("eva02", {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}),
    ],
)
def test_transformers_learn_under_adamw_and_cosine(make_images, device, model, architecture):
    images = make_images((3, 8, 8), classes=3, per_class=8, noise=20)
    torch.manual_seed(0)
    network = build_classifier(ClassifierConfig(model=model, architecture=architecture), 3, 3, 8)
    settings = {"epochs": 12, "batch_size": 8, "optimizer": "adamw", "schedule": "cosine", "learning_rate": 5e-3}
    settings |= {"warmup_epochs": 1, "gradient_clip": 1.0, "standard": {"crop_padding": 0}}
    assert train(device, images, images, model=network, **settings).validation_acc == 100


def test_a_seed_gives_one_classifier(make_images, device):
    images, validation = make_images(noise=150), make_images(noise=150, seed=1)
    one, same, other = (train(device, images, validation, seed) for seed in (0, 0, 1))
    assert_same(one, same)
    assert one.state.log != other.state.log


@pytest.mark.parametrize("batch_size", [21, 12, 2])
def test_the_training_loss_is_a_mean_over_images(make_images, device, batch_size):
    """With a rate too small to move anything; the last batch may be smaller than the others."""
    images = make_images(per_class=8)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    settings = {"learning_rate": 1e-30, "max_learning_rate": 1e-29, "standard": {"crop_padding": 0}}
    trained = train(device, images, images, model=model, epochs=1, batch_size=batch_size, **settings)
    x = torch.from_numpy(images.images).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(model(x), torch.from_numpy(images.labels))
    assert trained.state.log[0]["train_loss"] == pytest.approx(float(loss), rel=1e-5)


def test_no_epochs_leave_the_weights_as_they_are(make_images, device):
    images = make_images()
    model = Small()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trained = train(device, images, images, model=model, epochs=0)
    assert trained.state.log == []
    assert 0 <= trained.validation_acc <= 100
    for name, value in trained.state.module.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_discriminants_of_images_that_are_not_square_need_a_size(make_images, device):
    images = make_images((1, 8, 12))
    model = build_classifier(ClassifierConfig(model="lda"), 3, 1, 8)
    with pytest.raises(ValueError, match=r"^image_size: expected a size.*8×12"):
        train(device, images, images, model=model)


@pytest.mark.parametrize("per_class", [3, 11])
def test_a_last_batch_of_one_image_is_no_obstacle(make_images, device, per_class):
    """ResNet18 leaves one pixel of an image of 8×8, and one value has no variance to normalise by."""
    images = make_images(classes=3, per_class=per_class)
    settings = {"batch_size": 3 * per_class - 1, "standard": {"crop_padding": 0}}
    trained = train(device, images, images, model=resnet18(), epochs=1, **settings)
    assert trained.state.log[0]["train_loss"] == pytest.approx(np.log(3), abs=1)  # its loss is not counted either


@pytest.mark.parametrize(
    ("settings", "setting"),
    [
        ({"learning_rate": 1e29, "max_learning_rate": 1e30}, r"max_learning_rate \(now 1e\+30\)"),
        ({"learning_rate": 1e30, "schedule": "constant"}, r"smaller learning_rate \(now 1e\+30\)"),
    ],
)
@pytest.mark.parametrize("checkpoints", [False, True])
def test_a_loss_that_is_not_finite_names_the_setting(make_images, device, settings, setting, checkpoints, tmp_path):
    images = make_images()
    folder = tmp_path if checkpoints else None
    with pytest.raises(TrainingDiverged, match=rf"step \d+ .*{setting}") as error:
        train(device, images, images, folder=folder, checkpoint_minutes=1e-9, **settings)
    assert "\n" not in str(error.value)


# ---- what a step is made of ---------------------------------------------------------------------------------


def note_steps(monkeypatch: pytest.MonkeyPatch, kind: type[torch.optim.Optimizer]) -> list[dict]:
    """Settings of the optimizer and the norm of the gradient at every step."""
    steps: list[dict] = []
    step = kind.step

    def note(optimizer: torch.optim.Optimizer, *arguments: object, **options: object) -> object:
        (group,) = optimizer.param_groups
        norm = torch.linalg.vector_norm(torch.cat([p.grad.flatten() for p in group["params"]]))
        steps.append({**group, "norm": float(norm)})
        return step(optimizer, *arguments, **options)

    monkeypatch.setattr(kind, "step", note)
    return steps


def test_the_learning_rate_makes_one_cycle_and_the_momentum_stays(make_images, device, monkeypatch):
    steps = note_steps(monkeypatch, torch.optim.SGD)
    images = make_images()
    train(device, images, images, epochs=10, learning_rate=1e-3, max_learning_rate=0.1, momentum=0.7)
    assert {step["momentum"] for step in steps} == {0.7}
    rates = [step["lr"] for step in steps]
    assert len(rates) == 10 * 4
    assert rates[0] == pytest.approx(1e-3)
    peak = rates.index(max(rates))
    assert rates[peak] == pytest.approx(0.1, rel=0.02)
    assert peak == pytest.approx(0.3 * 40, abs=1)  # three tenths up, the rest down
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] < 1e-4


def test_the_released_cycle_moves_the_momentum_against_the_learning_rate(make_images, device, monkeypatch):
    """From 4e-3 to 0.1 and down to 4e-7, while the momentum goes from 0.95 to 0.85 and back: torch's defaults."""
    steps = note_steps(monkeypatch, torch.optim.SGD)
    images = make_images()
    train(device, images, images, epochs=10, learning_rate=4e-3, max_learning_rate=0.1, cycle_momentum=True)
    rates, momenta = ([step[name] for step in steps] for name in ("lr", "momentum"))
    assert (rates[0], momenta[0]) == pytest.approx((4e-3, 0.95))
    lowest = momenta.index(min(momenta))
    assert lowest == rates.index(max(rates))
    assert momenta[lowest] == pytest.approx(0.85, abs=1e-3)
    assert (rates[-1], momenta[-1]) == pytest.approx((4e-7, 0.95))


def test_a_warm_up_of_all_epochs_is_refused():
    with pytest.raises(ValidationError, match="warmup_epochs"):
        ClassifierConfig(schedule="cosine", epochs=3, warmup_epochs=3)


@pytest.mark.parametrize("warmup", [0, 2])
def test_the_learning_rate_makes_a_half_wave_after_a_linear_warm_up(make_images, device, monkeypatch, warmup):
    steps = note_steps(monkeypatch, torch.optim.AdamW)
    images = make_images()
    settings = {"optimizer": "adamw", "schedule": "cosine", "learning_rate": 0.01, "weight_decay": 0.05}
    train(device, images, images, epochs=10, warmup_epochs=warmup, **settings)
    w, n = 4 * warmup, 4 * 10
    rising = [0.01 * (1 / w + t / w * (1 - 1 / w)) for t in range(w)]
    falling = [0.01 * (1 + math.cos(math.pi * (t - w) / (n - w))) / 2 for t in range(w, n)]
    assert [step["lr"] for step in steps] == pytest.approx(rising + falling)
    assert {step["weight_decay"] for step in steps} == {0.05}


def test_weights_are_tested_as_they_are_in_spite_of_a_warm_up():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1)
    make_schedule(optimizer, ClassifierConfig(schedule="cosine", epochs=0, warmup_epochs=3), 5)


def test_a_fault_of_a_model_is_no_divergence(make_images, device):
    class Faulty(torch.nn.Linear):
        def forward(self, x):
            return x / (1 // 0)

    images = make_images()
    with pytest.raises(ZeroDivisionError):
        train(device, images, images, epochs=1, model=Faulty(1, 1))


def test_gradients_are_clipped_to_the_norm(make_images, device, monkeypatch):
    steps = note_steps(monkeypatch, torch.optim.SGD)
    images = make_images(noise=60)
    train(device, images, images)
    train(device, images, images, gradient_clip=0.1)
    free, clipped = ([step["norm"] for step in some] for some in (steps[:12], steps[12:]))
    assert max(free) > 0.2
    assert max(clipped) == pytest.approx(0.1, rel=1e-3)


def test_parts_of_a_batch_make_the_step_of_the_whole(make_images, device):
    """16 images in parts of 6, 6 and 4, the last batch of 12 in parts of 4; mixed labels too."""
    images = make_images(noise=60)
    settings = {"epochs": 2, "label_smoothing": 0.1, "gradient_clip": 1.0, "standard": {"crop_padding": 1, "mixup": 1}}
    trained = []
    for accumulate in (1, 3):
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(64, 16), torch.nn.GELU(), torch.nn.Linear(16, 3)
        )
        trained.append(train(device, images, images, model=model, accumulate=accumulate, **settings))
    whole, in_parts = trained
    for row, same in zip(whole.state.log, in_parts.state.log, strict=True):
        assert same["train_loss"] == pytest.approx(row["train_loss"], rel=1e-5)
    for value, same_value in zip(whole.state.module.parameters(), in_parts.state.module.parameters(), strict=True):
        torch.testing.assert_close(value, same_value, rtol=1e-4, atol=1e-6)


def test_parts_of_a_batch_are_refused_where_it_is_normalised_as_a_whole(make_images, device):
    images = make_images()
    with pytest.raises(ValueError, match="accumulate"):
        train(device, images, images, accumulate=2)


def test_smoothed_labels_are_a_mixture_with_the_uniform_law(make_images, device):
    """Logits that are the same for every image, all of class 0: −Σ p log q by hand."""
    images = make_images(classes=3)
    images = ImageSet(images.images, np.zeros_like(images.labels), images.meta)

    class Sure(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.logits = torch.nn.Parameter(torch.tensor([2.0, 0.0, -1.0]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.logits.expand(len(x), 3)

    settings = {"label_smoothing": 0.3, "learning_rate": 1e-30, "schedule": "constant", "epochs": 1}
    trained = train(device, images, images, model=Sure(), **settings)
    log_q = torch.log_softmax(torch.tensor([2.0, 0.0, -1.0]), 0)
    assert trained.state.log[0]["train_loss"] == pytest.approx(-float(torch.tensor([0.8, 0.1, 0.1]) @ log_q), rel=1e-5)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_a_mixed_image_has_the_label_of_its_parts(kind):
    """Class k's images are all k: the mean of a mixed image is that of its label."""
    labels = torch.tensor([0, 1, 2, 3] * 4)
    images = labels[:, None, None, None].float().expand(16, 1, 8, 8).contiguous()
    augmentation = BatchAugmentation(StandardAugmentation(**{kind: 1.0}), 4, torch.device("cpu"))
    shares = set()
    for seed in range(10):
        torch.manual_seed(seed)
        mixed, targets = augmentation(images, labels)
        assert targets.shape == (16, 4)
        torch.testing.assert_close(targets.sum(1), torch.ones(16))
        torch.testing.assert_close(mixed.mean((1, 2, 3)), targets @ torch.arange(4.0))
        whole = {*mixed.unique().tolist()} <= {0, 1, 2, 3}
        assert whole == (kind == "cutmix")
        shares.add(round(float(targets.max()), 3))
    assert len(shares) > 5


def test_with_both_either_is_tossed_for():
    images, labels = torch.eye(8)[:, None, None].expand(8, 1, 8, 8), torch.arange(8)
    augmentation = BatchAugmentation(StandardAugmentation(mixup=1.0, cutmix=1.0), 8, torch.device("cpu"))
    kinds = set()
    for seed in range(20):
        torch.manual_seed(seed)
        kinds.add(bool(torch.isin(augmentation(images, labels)[0], torch.tensor([0.0, 1.0])).all()))
    assert kinds == {True, False}


def test_a_share_of_the_batches_is_mixed():
    images, labels = torch.eye(8)[:, None, None].expand(8, 1, 8, 8), torch.arange(8)
    standard = StandardAugmentation(mixup=1.0, cutmix=1.0, mix_probability=0.5)
    augmentation = BatchAugmentation(standard, 8, torch.device("cpu"))
    mixed = 0
    for seed in range(200):
        torch.manual_seed(seed)
        changed, targets = augmentation(images, labels)
        mixed += targets.ndim == 2
        assert targets.ndim == 2 or torch.equal(changed, images)
    assert mixed == pytest.approx(100, abs=25)  # 3.5 standard deviations


def test_erasing_to_the_mean_leaves_zeros_of_up_to_the_largest_area():
    standard = StandardAugmentation(random_erasing=1.0, erasing_max_area=0.4, erasing_fill="mean")
    augmentation = BatchAugmentation(standard, 3, torch.device("cpu"))
    torch.manual_seed(0)
    images, _ = augmentation(torch.full((1000, 1, 32, 32), 9.0), torch.zeros(1000, dtype=torch.int64))
    assert {*images.unique().tolist()} == {0.0, 9.0}
    area = (images == 0).float().mean((1, 2, 3))
    assert float(area.max()) == pytest.approx(0.4, abs=0.03)
    assert float(area.median()) == pytest.approx(0.21, abs=0.03)  # uniform from 0.02


def test_the_probability_of_erasing_is_that_of_the_settings():
    augmentation = BatchAugmentation(StandardAugmentation(random_erasing=0.25), 3, torch.device("cpu"))
    torch.manual_seed(0)
    images, labels = augmentation(torch.full((2000, 1, 8, 8), 9.0), torch.zeros(2000, dtype=torch.int64))
    assert torch.equal(labels, torch.zeros(2000, dtype=torch.int64))
    erased = images != 9
    assert erased.flatten(1).any(1).float().mean() == pytest.approx(0.25, abs=0.05)
    noise = images[erased]
    assert noise.mean() == pytest.approx(0, abs=0.1)
    assert noise.std() == pytest.approx(1, abs=0.1)
    torch.manual_seed(0)
    assert torch.equal(images, augmentation(torch.full((2000, 1, 8, 8), 9.0), labels)[0])


def test_without_augmentation_a_batch_stays():
    images, labels = torch.randn(4, 1, 8, 8), torch.arange(4)
    unchanged = BatchAugmentation(StandardAugmentation(), 4, torch.device("cpu"))(images.clone(), labels)
    assert torch.equal(unchanged[0], images)
    assert unchanged[1] is labels


# ---- a training that is cut ---------------------------------------------------------------------------------


AUGMENTED = {"crop_padding": 1, "random_erasing": 0.5, "mixup": 1.0, "cutmix": 1.0}
ADAMW = {"optimizer": "adamw", "schedule": "cosine", "label_smoothing": 0.1}
EVERYTHING = ADAMW | {
    "warmup_epochs": 1,
    "gradient_clip": 0.5,
    "standard": AUGMENTED | {"auto_augment": "cifar10", "rand_augment": "rand-m9-mstd0.5-inc1"},
}
RECIPE = ADAMW | {
    "epochs": 1,
    "repeats": 3,
    "standard": AUGMENTED | {"erasing_max_area": 0.4, "erasing_fill": "mean", "mix_probability": 0.5},
}
"""12 steps as well: three passes in one epoch."""


@pytest.mark.parametrize(
    ("settings", "nfa"),
    [
        ({}, False),
        ({"momentum": 0.0}, True),
        ({"cycle_momentum": True}, False),
        ({"schedule": "constant"}, False),
        (EVERYTHING, True),
        (RECIPE, False),
        (RECIPE, True),
    ],
    ids=["sgd", "no momentum, nfa", "cycled momentum", "constant", "everything", "repeats", "repeats, nfa"],
)
@pytest.mark.parametrize("saves", [2, 4, 6])  # in an epoch, at its end, in the warm-up's next
def test_two_parts_equal_the_whole(make_images, device, settings, nfa, saves, tmp_path, monkeypatch, cut_after):
    images = make_images(noise=90, flip=True)
    variants = None
    if nfa:
        meta = {**images.meta, "extra": {"variants": 2}}
        changed = np.repeat(images.images, 2, axis=0) // 2
        variants = Variants.from_image_set(ImageSet(changed, np.repeat(images.labels, 2), meta), images)
    settings = {"variants": variants, "checkpoint_minutes": 1e-9, **settings}
    whole = train(device, images, images, **settings)
    with monkeypatch.context() as patch:
        saved = cut_after(patch, saves)
        with pytest.raises(KeyboardInterrupt):
            train(device, images, images, folder=tmp_path, **settings)
    torch.manual_seed(77)  # whatever the generators were doing
    np.random.seed(77)  # noqa: NPY002
    model = Small()
    with monkeypatch.context() as patch:
        made = cut_after(patch, 99)
        resumed = train(device, images, images, model=model, folder=tmp_path, **settings)
    assert {*made} - {saved[-1]} == {*range(saved[-1] + 1, 13)}  # the end of an epoch is saved twice
    assert_same(whole, resumed)


@pytest.mark.parametrize("how", ["plain", "workers", "checkpointed"])
def test_table_6_in_parts_of_a_batch_is_resumed_bit_for_bit(make_images, device, tmp_path, monkeypatch, cut_after, how):
    """The settings of preset paper's EVA02, but for its size and what is trained; with random depth."""
    paper = resolve(ROOT / "config.yaml", ROOT / "presets", {"preset": "paper"}).config.classifiers["eva02"]
    assert paper.accumulate > 1
    images = make_images((3, 8, 8), noise=90, flip=True)
    settings = {name: getattr(paper, name) for name in ("accumulate", "optimizer", "schedule", "momentum")}
    settings |= {"gradient_clip": paper.gradient_clip, "checkpoint_minutes": 1e-9, "learning_rate": 0.01}
    settings |= {"workers": 2} if how == "workers" else {}

    def model() -> torch.nn.Module:
        torch.manual_seed(1)
        return build_classifier(ClassifierConfig(model="eva02", architecture=TINY_EVA02), 3, 3, 8)

    whole = train(device, images, images, model=model(), **settings)
    settings |= {"checkpoint_activations": how == "checkpointed"}  # changes no result
    with monkeypatch.context() as patch:
        cut_after(patch, 6)
        with pytest.raises(KeyboardInterrupt):
            train(device, images, images, model=model(), folder=tmp_path, **settings)
    torch.manual_seed(77)
    assert_same(whole, train(device, images, images, model=model(), folder=tmp_path, **settings))
    assert multiprocessing.active_children() == []


def test_mixed_precision_is_resumed_too(make_images, tmp_path, monkeypatch, cut_after):
    images = make_images(noise=90)
    settings = {"checkpoint_minutes": 1e-9, "gradient_clip": 0.5, "precision": "bf16-mixed"}
    whole = train(make_device("bf16-mixed"), images, images, **settings)
    with monkeypatch.context() as patch:
        cut_after(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            train(make_device("bf16-mixed"), images, images, folder=tmp_path, **settings)
    resumed = train(make_device("bf16-mixed"), images, images, model=Small(), folder=tmp_path, **settings)
    assert_same(whole, resumed)


def test_a_finished_training_is_not_repeated(make_images, device, tmp_path, monkeypatch):
    images = make_images()
    first = train(device, images, images, folder=tmp_path, checkpoint_minutes=1e-9)
    steps = note_steps(monkeypatch, torch.optim.SGD)
    assert_same(first, train(device, images, images, model=Small(), folder=tmp_path))
    assert steps == []


def test_a_checkpoint_of_another_model_is_refused(make_images, device, tmp_path):
    images = make_images()
    train(device, images, images, folder=tmp_path, checkpoint_minutes=1e-9)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    with pytest.raises(ValueError, match="weight"):
        train(device, images, images, model=model, folder=tmp_path)
