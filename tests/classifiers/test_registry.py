from __future__ import annotations

import argparse
import os
import socket
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn

from nfpi.classifiers import (
    ClassifierData,
    Preprocessing,
    build_classifier,
    build_trained,
    get_preprocessing,
    load_weights,
    published_weights,
    read_weights,
    register_classifier,
    score_classifier,
    train_classifier,
)
from nfpi.config.base import Settings
from nfpi.config.classifiers import CLASSIFIERS, ClassifierConfig
from nfpi.runtime.checkpoints import Checkpoints
from nfpi.runtime.device import make_device
from nfpi.runtime.formats import FormatError

SMALL = {
    "resnet18": {},
    "swin": {"embed_dim": 12, "depths": [1, 1], "num_heads": [1, 2]},
    "eva02": {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2},
}


def build(model: str, classes: int = 3, channels: int = 3, size: int = 16, **changes: object) -> nn.Module:
    torch.manual_seed(0)
    config = ClassifierConfig(**{"model": model, "architecture": SMALL[model], **changes})
    return build_classifier(config, classes, channels, size)


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


# ---- networks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "classes", "size", "millions"),
    [("resnet18", 10, 32, 11.17), ("swin", 10, 32, 7.05), ("eva02", 1000, 448, 87.12)],
)
def test_the_networks_have_the_papers_size(model, classes, size, millions):
    with torch.device("meta"):
        assert round(parameters(build(model, classes, size=size, architecture={})) / 1e6, 2) == millions


@pytest.mark.parametrize(("channels", "classes", "size"), [(1, 3, 8), (3, 7, 16)])
@pytest.mark.parametrize("model", SMALL)
def test_images_become_logits_that_depend_on_every_pixel(model, channels, classes, size):
    network = build(model, classes, channels, size).eval()
    x = torch.randn(2, channels, size, size, requires_grad=True)
    logits = network(x)
    assert logits.shape == (2, classes)
    logits.square().sum().backward()
    assert (x.grad != 0).all()


@pytest.mark.parametrize(("channels", "classes"), [(1, 3), (3, 100)])
def test_the_stem_keeps_the_size_of_small_images(channels, classes):
    model = build("resnet18", classes, channels, 8).eval()
    sizes = []
    model.layer1.register_forward_pre_hook(lambda _, received: sizes.append(received[0].shape))
    with torch.no_grad():
        logits = model(torch.randn(2, channels, 8, 8))
    assert logits.shape == (2, classes)
    assert sizes == [(2, 64, 8, 8)]


def test_an_impossible_architecture_is_refused_in_one_line():
    with pytest.raises(ValueError, match="eva02") as error:
        build("eva02", architecture={"embed_dim": 15, "num_heads": 2})
    assert "'embed_dim': 15" in str(error.value)
    assert "\n" not in str(error.value)


def test_images_of_eva02_are_seen_as_in_its_pretraining():
    seen = get_preprocessing(ClassifierConfig(model="eva02"))
    assert seen.mean == pytest.approx((0.48145466, 0.4578275, 0.40821073))
    assert seen.std == pytest.approx((0.26862954, 0.26130258, 0.27577711))
    assert seen.squash
    for model in ("resnet18", "swin"):
        assert get_preprocessing(ClassifierConfig(model=model)).mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("normalization", "mean", "std"),
    [
        ("half", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ("cifar10", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        ("imagenet", IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
        ("dataset", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)),
    ],
)
def test_a_setting_says_how_channels_are_normalised(normalization, mean, std):
    for model in ("swin", "eva02"):
        config = ClassifierConfig(model=model, normalization=normalization)
        seen = get_preprocessing(config, ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)))
        assert (seen.mean, seen.std) == (mean, std)
        assert seen.squash == (model == "eva02")


def test_layer_normalisations_of_swin_have_the_given_epsilon():
    architecture = {"embed_dim": 12, "depths": [1, 1], "num_heads": [1, 2]}
    for given in (None, 1e-6):
        more = {} if given is None else {"layer_norm_eps": given}
        model = build_classifier(ClassifierConfig(model="swin", architecture=architecture | more), 3, 3, 8)
        epsilons = {module.eps for module in model.modules() if isinstance(module, torch.nn.LayerNorm)}
        assert epsilons == {given or 1e-5}


def test_the_stem_of_resnet18_is_initialised_as_the_setting_says():
    """torch draws a convolution's weights from U(−1/√n, 1/√n) for n inputs; kaiming_normal has std √(2/(9·64))."""
    stems = {}
    for init in ("kaiming_normal", "torch_default"):
        torch.manual_seed(0)
        model = build_classifier(ClassifierConfig(architecture={"stem_init": init}), 10, 3, 8)
        stems[init] = model.conv1.weight.detach()
    assert float(stems["torch_default"].abs().max()) == pytest.approx(27**-0.5, rel=0.01)
    assert float(stems["torch_default"].std()) == pytest.approx(81**-0.5, rel=0.05)
    assert float(stems["kaiming_normal"].std()) == pytest.approx((2 / 576) ** 0.5, rel=0.05)


# ---- weights ------------------------------------------------------------------------------------------------


def save(model: nn.Module, path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(model.state_dict(), path)
    else:
        torch.save({"model": model.state_dict(), "epoch": 3}, path)
    return path


@pytest.mark.parametrize("file", ["w.safetensors", "w.pth"])
@pytest.mark.parametrize("model", SMALL)
def test_weights_from_a_file_are_those_of_the_classifier(model, file, tmp_path):
    network = build(model)
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    loaded = build(model, weights=save(network, tmp_path / file))
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("model", "changes", "named"),
    [
        ("resnet18", {}, "size mismatch"),
        ("swin", {}, "size mismatch"),
        ("eva02", {"architecture": {**SMALL["eva02"], "depth": 1}}, "blocks"),
    ],
)
def test_weights_of_another_architecture_are_refused(model, changes, named, tmp_path):
    path = save(build(model, classes=4), tmp_path / "w.safetensors")
    with pytest.raises(FormatError, match=rf"w.safetensors: .*{named}"):
        build(model, weights=path, **changes)


def test_pretrained_weights_are_fitted_to_other_classes_channels_and_sizes(tmp_path):
    """timm does it: everything but the head is taken over, positions are resampled, colours summed to grey."""
    network = build("eva02")
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    path = save(network, tmp_path / "w.safetensors")
    fitted = build("eva02", classes=5, channels=1, size=32, weights=path)
    assert torch.equal(fitted.blocks[1].mlp.fc2.weight, network.blocks[1].mlp.fc2.weight)
    torch.testing.assert_close(fitted.patch_embed.proj.weight, network.patch_embed.proj.weight.sum(1, keepdim=True))
    assert fitted.pos_embed.shape == (1, 1 + 64, 16)
    assert fitted.head.weight.shape == (5, 16)
    assert fitted(torch.randn(2, 1, 32, 32)).shape == (2, 5)


@pytest.mark.parametrize("model", ["resnet18", "swin"])
def test_small_models_have_no_published_weights(model):
    with pytest.raises(ValueError, match=model):
        build(model, pretrained=True)
    with pytest.raises(ValueError, match=model):
        published_weights(model)


def test_published_weights_out_of_reach_are_one_line(monkeypatch):
    class HubError(Exception):
        pass

    for error in (HubError("no\nroute"), FileNotFoundError("no\nroute")):

        def refuse(*_: object, error: Exception = error, **settings: object) -> None:
            assert settings["pretrained"]
            raise error

        monkeypatch.setattr(timm, "create_model", refuse)
        with pytest.raises(OSError, match=r"eva02 .*no route"):
            build("eva02", pretrained=True)


class Dangerous:
    def __reduce__(self) -> tuple:
        return Path.touch, (Path("touched"),)


def test_nothing_in_a_file_of_weights_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"a": torch.zeros(1), "b": Dangerous()}, "w.pth")
    with pytest.raises(FormatError, match=r"^w\.pth: "):
        read_weights(Path("w.pth"))
    assert not Path("touched").exists()


@pytest.mark.parametrize("zipped", [True, False], ids=["archive", "earlier format"])
@pytest.mark.parametrize(
    "content",
    [{"state_dict": {}, "args": argparse.Namespace(epochs=3)}, nn.Linear(1, 1), [1, 2]],
    ids=["arguments", "module", "list"],
)
def test_files_with_other_objects_than_tensors_are_told_what_to_do(content, zipped, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(content, "w.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(FormatError, match=r"^w\.pth: "):
        read_weights(Path("w.pth"))


@pytest.mark.parametrize("file", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [None, b"", b"no weights"])
def test_missing_and_damaged_files_are_named(content, file, tmp_path):
    path = tmp_path / file
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FormatError, match=file):
        read_weights(path)


@pytest.mark.parametrize("classes", [3, 7])
def test_weights_that_lack_parameters_of_the_model_are_refused(classes, tmp_path):
    """timm accepts them silently if the number of classes differs, and then the parameters stay random."""
    others = {f"other_{name}": value for name, value in build("eva02").state_dict().items()}
    save_file(others, tmp_path / "w.safetensors")
    with pytest.raises(FormatError, match=r"w.safetensors: .*cls_token"):
        build("eva02", classes=classes, weights=tmp_path / "w.safetensors")


def test_the_prefix_of_the_image_tower_of_clip_is_removed(tmp_path):
    """Published towers have further layers; their `head` is a projection, not a layer of classes."""
    path, network = tmp_path / "w.safetensors", build("eva02")
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    tower = {f"visual.trunk.{name}": value for name, value in network.state_dict().items()}
    save_file(tower, path)
    loaded = build("eva02", classes=7, weights=path)
    assert torch.equal(loaded.blocks[1].mlp.fc2.weight, network.blocks[1].mlp.fc2.weight)
    with pytest.raises(ValueError, match=r"head\.weight"):
        build("eva02", weights=path, epochs=0)
    save_file(tower | {"visual.trunk.blocks.0.attn.norm.weight": torch.ones(16)}, path)
    with pytest.raises(FormatError, match=r"blocks\.0\.attn\.norm\.weight"):
        build("eva02", classes=7, weights=path)


def test_weights_without_training_need_a_head(tmp_path):
    body = {name: value for name, value in build("eva02").state_dict().items() if not name.startswith("head.")}
    save_file(body, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"head\.weight"):
        build("eva02", weights=tmp_path / "w.safetensors", epochs=0)


def test_weights_without_training_need_the_classes_that_they_were_trained_on(tmp_path):
    path = save(build("eva02", classes=5), tmp_path / "w.safetensors")
    assert build("eva02", classes=5, weights=path, epochs=0).head.weight.shape == (5, 16)
    with pytest.raises(ValueError, match=r"of 3 classes .* of 5$"):
        build("eva02", weights=path, epochs=0)


# ---- models of the user's own ---------------------------------------------------------------------------------


class TinySettings(Settings):
    width: int = 4


@pytest.fixture
def registered(monkeypatch):
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(CLASSIFIERS, "_variants", dict(CLASSIFIERS._variants))


@pytest.fixture
def tiny(registered) -> str:
    @register_classifier("tiny", TinySettings, preprocessing=Preprocessing(std=(0.25, 0.25, 0.25)))
    def tiny(num_classes: int, in_channels: int, image_size: int, settings: TinySettings) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(in_channels, settings.width, 3, padding=1),
            nn.BatchNorm2d(settings.width),
            nn.Dropout(0.1),
            nn.Flatten(),
            nn.Linear(settings.width * image_size**2, num_classes),
        )

    return "tiny"


def test_a_registered_model_is_trained_resumed_and_tested(tiny, make_images, tmp_path, monkeypatch, cut_after):
    config = ClassifierConfig(model=tiny, architecture={"width": 6}, epochs=3, batch_size=16, checkpoint_minutes=1e-9)
    images = make_images(noise=60)
    preprocessing = get_preprocessing(config)
    assert preprocessing.std == (0.25, 0.25, 0.25)
    data = ClassifierData(images, images, config, preprocessing, config.standard)

    def train(folder: Path | None) -> nn.Module:
        torch.manual_seed(0)
        model = build_classifier(config, 3, 1, 8)
        checkpoints = Checkpoints(folder, "f", config.checkpoint_minutes) if folder is not None else None
        return train_classifier(model, data, 0, make_device(), checkpoints).state.module

    whole = train(None)
    with monkeypatch.context() as patch:
        cut_after(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path)
    resumed = train(tmp_path)
    again = build_classifier(config, 3, 1, 8)
    load_weights(again, resumed.state_dict(), None)
    for model in (resumed, again):
        for name, value in whole.state_dict().items():
            assert torch.equal(model.state_dict()[name], value), name
    scores = score_classifier(again, images, preprocessing, torch.device("cpu"))
    assert scores.log_prob.shape == (60, 3)


# ---- a classifier that was trained, from its file -----------------------------------------------------------


def trained(model: str) -> tuple[dict[str, torch.Tensor], dict]:
    """Weights and header, as train-classifier writes them."""
    size = {"num_classes": 3, "in_channels": 3, "image_size": 16}
    classifier = ClassifierConfig(model=model, architecture=SMALL[model]).model_dump(mode="json")
    weights = {name: value.clone() for name, value in build(model).state_dict().items()}
    return weights, {"seed": 1, "classifier": classifier, "size": size, "temperature": 0.8}


@pytest.mark.parametrize("model", SMALL)
def test_a_trained_classifier_is_built_again(model, tmp_path):
    weights, header = trained(model)
    config, found, preprocessing = build_trained(weights, header, tmp_path / "model.safetensors")
    assert (config.model, preprocessing) == (model, get_preprocessing(config))
    assert all(torch.equal(value, weights[name]) for name, value in found.state_dict().items())


def test_images_of_a_trained_classifier_are_normalised_as_in_its_training(tmp_path):
    weights, header = trained("swin")
    header["classifier"]["normalization"] = "dataset"
    known = {"normalization": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}}
    *_, preprocessing = build_trained(weights, header | known, tmp_path / "model.safetensors")
    assert preprocessing == Preprocessing((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    for wrong in (
        {},
        {"normalization": {"mean": [0.1], "std": [0.0]}},
        {"normalization": {"mean": [1.1], "std": [0.1]}},
    ):
        with pytest.raises(FormatError, match=r"model\.safetensors: "):
            build_trained(weights, header | wrong, tmp_path / "model.safetensors")


class _Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("key", ["checkpoint_path", "pretrained_cfg_overlay", "pretrained", "cache_dir"])
def test_a_header_cannot_make_timm_load_a_file(tmp_path, key):
    evil, victim = tmp_path / "evil.pth", tmp_path / "executed"
    torch.save({"state_dict": _Malicious(victim)}, evil)
    weights, header = trained("eva02")
    header["classifier"]["architecture"][key] = {"file": str(evil)} if "overlay" in key else str(evil)
    with pytest.raises(FormatError, match=rf"model\.safetensors: .*unknown key 'architecture\.{key}'") as error:
        build_trained(weights, header, tmp_path / "model.safetensors")
    assert "\n" not in str(error.value)
    assert not victim.exists()


def test_what_a_classifier_began_with_is_not_loaded_again(tmp_path, monkeypatch):
    """Nor is a connection opened for it."""
    monkeypatch.setattr(socket, "socket", None)
    weights, header = trained("eva02")
    header["classifier"] |= {"pretrained": True, "weights": "$UNSET_VARIABLE/evil.pth", "start_from": "other"}
    config, *_ = build_trained(weights, header, tmp_path / "model.safetensors")
    assert (config.pretrained, config.weights, config.start_from) == (False, None, None)


DEEP = SMALL["swin"] | {"depths": [10**9, 1]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1.5}, "seed"),
        ({"size": {"num_classes": 3}}, r"size\.in_channels"),
        ({"size": {"num_classes": 10**9, "in_channels": 3, "image_size": 16}}, "size mismatch"),
        ({"classifier": {"model": "swim"}}, "swim"),
        ({"classifier": {"model": "swin", "architecture": DEEP}}, "depths"),
        ({"classifier": {"model": "swin", "image_size": 512}}, "image_size"),
        ({"classifier": {"model": "eva02"}}, "expected"),
    ],
)
def test_a_damaged_header_is_named_with_its_file(tmp_path, changes, message):
    weights, header = trained("swin")
    with pytest.raises(FormatError, match=rf"model\.safetensors: .*{message}") as error:
        build_trained(weights, header | changes, tmp_path / "model.safetensors")
    assert "\n" not in str(error.value)


def test_an_image_size_with_more_patches_than_the_weights_is_refused(tmp_path):
    """Also where the size of a patch is the default of the model."""
    weights, header = trained("eva02")
    header["classifier"]["architecture"].pop("patch_size")
    header["size"]["image_size"] = 16384
    with pytest.raises(FormatError, match="pos_embed"):
        build_trained(weights, header, tmp_path / "model.safetensors")


@pytest.mark.parametrize("classes", [2, 4])
def test_the_linear_discriminant_is_that_of_scikit_learn(classes, make_images):
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    images = make_images((3, 8, 8), classes=classes, noise=90)
    data = ClassifierData(images, images, ClassifierConfig(model="lda", train_on="real", epochs=0))
    model = build_classifier(data.config, num_classes=classes, in_channels=3, image_size=8)
    train_classifier(model, data, 0, make_device(device=torch.device("cpu")))
    pixels = images.images.transpose(0, 3, 1, 2).reshape(len(images), -1) / 127.5 - 1
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(pixels, images.labels)
    found = model(torch.from_numpy(pixels).float().view(-1, 3, 8, 8)).softmax(1)
    np.testing.assert_allclose(found.detach().numpy(), theirs.predict_proba(pixels), atol=1e-4)
