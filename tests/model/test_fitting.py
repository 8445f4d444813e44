"""A fit is what the stages do, in memory; what is wrong with its input is said in one line."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from stages.conftest import SmallRun

from nfpi import ClassConditionalFlow
from nfpi.config.base import Settings
from nfpi.config.priors import DEFAULT_RELATIVE_WEIGHT, PRIORS, compute_weight
from nfpi.data import ImageSet, read_image_set
from nfpi.model.fitting import choose_prior, choose_weight
from nfpi.runtime.allocation import DeviceError
from nfpi.runtime.divergence import Diverged
from nfpi.training import loop

from .conftest import SMALL

QUICK = {"flow": SMALL, "epochs": 2, "weight": 10.0, "progress": False}


def fit(images: ImageSet, **changes: Any) -> ClassConditionalFlow:
    return ClassConditionalFlow.fit(images.images, images.labels, **QUICK | changes)


PROGRAM = """
import sys
import numpy as np
from nfpi import ClassConditionalFlow
from nfpi.data import read_image_folder

images, labels, classes = read_image_folder(sys.argv[1])
model = ClassConditionalFlow.fit(images, labels, classes=classes, epochs=2, validation=0.2)
model.save_pretrained(sys.argv[2])
np.savez(sys.argv[3], log_prob=model.log_prob(images), images=images, drawn=model.sample(labels[:3], 0.5))
"""


def test_a_folder_of_images_is_fitted_saved_and_loaded_by_another_process(images, tmp_path):
    for index, (image, label) in enumerate(zip(images.images, images.labels, strict=True)):
        folder = tmp_path / "images" / images.classes[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(folder / f"{index:02d}.png")
    place = tmp_path / "empty"
    place.mkdir()
    command = [sys.executable, "-c", PROGRAM, *(str(tmp_path / name) for name in ("images", "model", "found.npz"))]
    environment = {"OMP_NUM_THREADS": "1", "PATH": "", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert not list(place.iterdir())
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    found = np.load(tmp_path / "found.npz")
    model = ClassConditionalFlow.from_pretrained(tmp_path / "model")
    assert model.classes == images.classes
    assert (model.log_prob(found["images"]) == found["log_prob"]).all()
    assert found["drawn"].shape == (3, 8, 8, 1)


def test_a_fit_is_the_stages_in_one_call(tmp_path):
    """Bit for bit: weights, Gaussians, and what is known of them."""
    run = SmallRun(tmp_path / "digits-run", weight=100, seed=3)
    run.begin()
    run.train()
    trained = ClassConditionalFlow.read(run.model)
    train, validation = (read_image_set(run.splits / split) for split in ("train", "validation"))
    config = trained.config
    model = ClassConditionalFlow.fit(
        train.images,
        train.labels,
        validation=(validation.images, validation.labels),
        classes=train.classes,
        flow={"kind": trained.flow.kind, **trained.flow.settings.model_dump()},
        training=config["training"],
        prior=config["prior"]["settings"],
        weight=config["prior"]["lambda"],
        seed=config["seed"],
        progress=False,
    )
    for name, weights in trained.flow.state_dict().items():
        assert torch.equal(model.flow.state_dict()[name], weights), name
    assert torch.equal(model.prior.mean, trained.prior.mean)
    assert torch.equal(model.prior.variance, trained.prior.variance)
    for key in ("seed", "start", "step", "prior", "training"):
        assert model.config[key] == config[key], key
    assert model.config["threads"] == config["threads"] == 1  # the images are few and small


def test_classes_are_the_names_of_the_labels(images):
    names = np.array(["wasp", "ant", "bee"])[images.labels]
    model = ClassConditionalFlow.fit(images.images, names, **QUICK)
    assert model.classes == ["ant", "bee", "wasp"]
    assert ClassConditionalFlow.fit(images.images[..., 0], images.labels.tolist(), **QUICK).classes == ["0", "1", "2"]


def test_a_share_is_held_out_of_every_class(images):
    model = fit(images, validation=0.25, name="toy")
    assert model.config["validation"]["n"] == 15
    assert 0 <= model.config["validation"]["nf_acc"] <= 100
    assert model.data["n"] == 45
    assert "validation" not in fit(images).config


@pytest.mark.parametrize(
    "method",
    [
        "gradient_descent",
        {"method": "repeated_fixed_point", "every_epochs": 1},
        {"method": "fixed_point", "update": "exact"},
    ],
)
def test_other_methods_give_other_gaussians(images, method):
    usual, other = fit(images, epochs=3), fit(images, epochs=3, prior=method)
    assert not torch.equal(usual.prior.variance, other.prior.variance)
    assert other.prior.mean.dtype == torch.float64


def test_a_fit_repeats_itself_and_leaves_the_global_state_alone(images, monkeypatch):
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda _: pytest.fail("a fit on a CPU seeds the GPUs"))
    mode = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode(0)
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 5)
    selected: list[int] = []
    monkeypatch.setattr(torch.cuda, "set_device", selected.append)
    state = torch.random.get_rng_state()
    one, other, third = (fit(images, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_deterministic_debug_mode() == 0
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert selected == [5, 5, 5]
    torch.set_deterministic_debug_mode(mode)
    assert (one.encode(images.images) == other.encode(images.images)).all()
    assert (one.encode(images.images) != third.encode(images.images)).any()


def test_a_fit_does_not_depend_on_the_state_that_the_caller_left_torch_in(images, state_of_caller, tmp_path):
    expected = fit(images)
    before = torch.get_default_dtype()
    with state_of_caller:
        inside = torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled()
        model = fit(images)
        assert (torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled()) == inside
        model.save_pretrained(tmp_path)
        read = ClassConditionalFlow.from_pretrained(tmp_path)
    assert torch.get_default_dtype() == before
    for name, weights in expected.flow.state_dict().items():
        for found in (model, read):
            assert torch.equal(found.flow.state_dict()[name], weights), name
    assert torch.equal(read.prior.mean, expected.prior.mean)


@pytest.mark.parametrize("enabled", [True, False])
def test_mixed_precision_is_that_of_the_fit(images, enabled):
    """Autocast around a whole fit would keep the rounded weights of its first step."""
    mixed = {"precision": "bf16-mixed"}
    expected = fit(images, training=mixed)
    with torch.autocast("cpu", enabled=enabled):
        found = fit(images, training=mixed)
        assert torch.is_autocast_enabled("cpu") == enabled
    assert (found.encode(images.images) == expected.encode(images.images)).all()


@pytest.mark.parametrize("seconds", [0, 60])
def test_the_bar_shows_the_loss_and_fills_no_file(images, capsys, monkeypatch, seconds):
    monkeypatch.setattr(loop, "_SECONDS_BETWEEN_LINES", seconds)
    fit(images, progress=True, epochs=30)
    lines = capsys.readouterr().err.split("\r")
    assert {line.partition("/")[2].partition(" ")[0] for line in lines if "step" in line} == {"120"}
    if seconds:
        assert len(lines) < 10
    else:
        assert any("train_bits_per_dim=" in line for line in lines)


def test_at_0_the_initial_gaussians_are_kept(images):
    """As in the workflow."""
    model = fit(images, weight=0)
    assert model.config["prior"] == {"lambda": 0.0}
    exact = fit(images, weight=0, prior="repeated_fixed_point")
    assert torch.equal(exact.prior.mean, model.prior.mean)


def test_the_weight_is_that_of_the_relative_weight(images):
    plain = {key: value for key, value in QUICK.items() if key != "weight"}
    for given, relative_weight in (({}, DEFAULT_RELATIVE_WEIGHT), ({"relative_weight": 0.1}, 0.1)):
        model = ClassConditionalFlow.fit(images.images, images.labels, prior={"alpha": 20}, **plain, **given)
        assert model.config["prior"]["lambda"] == compute_weight(relative_weight, 20, 3, 64)


def test_a_prior_of_ones_own_without_alpha_needs_lambda_if_it_uses_it():
    PRIORS.register("flat", Settings, "nfpi.priors.fixed_point:fit_prior", uses_weight=True, learned=False)
    PRIORS.register("free", Settings, "nfpi.priors.fixed_point:fit_prior", uses_weight=False, learned=False)
    try:
        assert choose_weight(3.0, None, choose_prior("flat"), 3, 64) == 3.0
        assert choose_weight(None, None, choose_prior("free"), 3, 64) == 0.0
        with pytest.raises(ValueError, match="weight: expected none with prior 'free', received 3"):
            choose_weight(3.0, None, choose_prior("free"), 3, 64)
        with pytest.raises(ValueError, match="weight: expected λ, since prior 'flat' has no alpha"):
            choose_weight(None, None, choose_prior("flat"), 3, 64)
    finally:
        for name in ("flat", "free"):
            del PRIORS._variants[name]


@pytest.mark.parametrize("method", [{"update": "exact"}, {"method": "repeated_fixed_point", "update": "exact"}])
def test_a_divergence_is_one_line_and_has_its_class(images, method):
    with pytest.raises(Diverged) as error:
        fit(images, weight=1e12, prior=method)
    assert error.value.class_index in range(3)
    assert "\n" not in str(error.value)


def test_images_are_mirrored_where_the_caller_allows_it(images):
    mirrored = fit(images, flip=True, training={"augmentation": "flip"})
    assert (mirrored.encode(images.images) != fit(images).encode(images.images)).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": [0] * 60}, "labels"),
        ({"labels": [0] * 30 + [2] * 30}, "'1'"),
        ({"labels": [-1, 0] * 30}, "-1"),
        ({"labels": [0, 10**12] * 30}, "1000000000000"),
        ({"labels": None}, "labels: expected one for each image, "),
        (
            {"flow": torch.nn.Identity()},
            "flow: expected a name or settings, received Identity",
        ),
        ({"prior": object()}, "prior: expected a name or settings, received object"),
        ({"weight": -1}, "weight: "),
        ({"relative_weight": 2}, "weight, relative_weight: "),
        ({"validation": (np.zeros((3, 8, 8, 1), np.uint8), [0, 1])}, "validation labels: "),
        ({"validation": (np.zeros((3, 8, 8, 1), np.uint8), [0, 1, 2], 1)}, "expected 2"),
        ({"validation": 1.5}, "validation: "),
        ({"training": {"augmentation": "flip"}}, "flip: "),
        ({"validation": 0.01}, "validation: "),
        ({"classes": ["a", "b"]}, "labels: "),
        ({"classes": ["a", "a", "b"]}, "distinct"),
        ({"seed": -1}, "seed"),
        ({"training": {"precision": "tf32"}, "device": "cpu"}, "precision: "),
    ],
)
def test_wrong_input_is_one_line(images: ImageSet, changes, message):
    arguments = {"images": images.images, "labels": images.labels, **QUICK, **changes}
    with pytest.raises(ValueError) as error:  # noqa: PT011, the message is compared
        ClassConditionalFlow.fit(**arguments)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_device_that_is_named_is_taken_whatever_the_job_was_given(images: ImageSet, monkeypatch):
    monkeypatch.delenv("NFPI_DEVICE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("SLURM_JOB_GPUS", "0")
    assert fit(images, device="cpu").device.type == "cpu"
    for device in (None, "cuda"):
        with pytest.raises(DeviceError, match="GPU"):
            fit(images, device=device)
    with pytest.raises(DeviceError, match=r"^device: expected a GPU for 'cuda', received "):
        fit(images, device="cpu").to("cuda")


def test_sizes_that_no_level_halves_are_refused(make_images):
    odd = make_images((1, 9, 9))
    with pytest.raises(ValueError, match="9×9"):
        ClassConditionalFlow.fit(odd.images, odd.labels)
