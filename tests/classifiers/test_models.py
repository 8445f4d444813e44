from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from nfpi.classifiers import build_classifier, load_weights, preprocessing_of, small_image_resnet18
from nfpi.classifiers.models import CLASSIFIERS, read_weights
from nfpi.config import ClassifierConfig
from nfpi.runtime.tensors import FormatError

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


def test_every_model_of_the_settings_is_there():
    assert list(CLASSIFIERS) == list(ClassifierConfig.model_json_schema()["properties"]["model"]["enum"])


@pytest.mark.parametrize(("channels", "classes", "size"), [(1, 3, 8), (3, 7, 16)])
@pytest.mark.parametrize("model", CLASSIFIERS)
def test_images_become_logits_that_depend_on_every_pixel(model, channels, classes, size):
    network = build(model, classes, channels, size).eval()
    x = torch.randn(2, channels, size, size, requires_grad=True)
    logits = network(x)
    assert logits.shape == (2, classes)
    logits.square().sum().backward()
    assert (x.grad != 0).all()


@pytest.mark.parametrize(("channels", "classes"), [(1, 3), (3, 100)])
def test_the_stem_keeps_the_size_of_small_images(channels, classes):
    model = small_image_resnet18(classes, channels).eval()
    sizes = []
    model.layer1.register_forward_pre_hook(lambda _, received: sizes.append(received[0].shape))
    with torch.no_grad():
        logits = model(torch.randn(2, channels, 8, 8))
    assert logits.shape == (2, classes)
    assert sizes == [(2, 64, 8, 8)]


def test_an_architecture_is_laid_over_the_papers():
    deeper = build("swin", architecture={"depths": [3, 6, 4]}, size=32)
    assert [len(layer.blocks) for layer in deeper.layers] == [3, 6, 4]
    assert deeper.embed_dim == 96


@pytest.mark.parametrize(
    ("model", "architecture"),
    [
        ("resnet18", {"depth": 3}),
        ("swin", {"embed_dimension": 12}),
        ("swin", {"window_size": 0}),
        ("eva02", {"embed_dim": 15, "num_heads": 2}),
        ("eva02", {"heads": 2}),
    ],
)
def test_an_impossible_architecture_is_refused_in_one_line(model, architecture):
    with pytest.raises(ValueError, match=f"expected a possible {model} of num_classes 3, .*received the arch") as error:
        build(model, architecture=architecture)
    assert str(architecture) in str(error.value)
    assert "\n" not in str(error.value)


def test_images_of_eva02_are_seen_as_in_its_pretraining():
    seen = preprocessing_of(ClassifierConfig(model="eva02"))
    assert seen.mean == pytest.approx((0.48145466, 0.4578275, 0.40821073))
    assert seen.std == pytest.approx((0.26862954, 0.26130258, 0.27577711))
    assert seen.squash
    for model in ("resnet18", "swin"):
        assert preprocessing_of(ClassifierConfig(model=model)).mean == (0.5, 0.5, 0.5)


# ---- weights ------------------------------------------------------------------------------------------------


def save(model: nn.Module, path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(model.state_dict(), path)
    else:
        torch.save({"model": model.state_dict(), "epoch": 3}, path)
    return path


@pytest.mark.parametrize("file", ["w.safetensors", "w.pth"])
@pytest.mark.parametrize("model", CLASSIFIERS)
def test_weights_from_a_file_are_those_of_the_classifier(model, file, tmp_path):
    network = build(model)
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    loaded = build(model, weights=save(network, tmp_path / file))
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


@pytest.mark.parametrize("model", ["resnet18", "swin"])
def test_weights_of_another_architecture_are_refused(model, tmp_path):
    path = save(build(model, classes=4), tmp_path / "w.safetensors")
    with pytest.raises(FormatError, match=r"w.safetensors: expected the weights of this classifier.*size mismatch"):
        build(model, weights=path)


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
    with pytest.raises(ValueError, match=f"{model} has no published weights"):
        build(model, pretrained=True)


def test_published_weights_out_of_reach_are_one_line(monkeypatch):
    class HubError(Exception):
        pass

    for error in (HubError("no\nroute"), FileNotFoundError("no\nroute")):

        def refuse(*_: object, error: Exception = error, **settings: object) -> None:
            assert settings["pretrained"]
            raise error

        monkeypatch.setattr(timm, "create_model", refuse)
        with pytest.raises(OSError, match=r"published weights of eva02 cannot be had \(no route\)"):
            build("eva02", pretrained=True)


class Dangerous:
    def __reduce__(self) -> tuple:
        return Path.touch, (Path("touched"),)


def test_nothing_in_a_file_of_weights_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"a": torch.zeros(1), "b": Dangerous()}, "w.pth")
    with pytest.raises(FormatError, match=r"w.pth: expected a file of weights, received a damaged one") as error:
        read_weights(Path("w.pth"))
    assert "\n" not in str(error.value)
    assert not Path("touched").exists()


@pytest.mark.parametrize("file", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [None, b"", b"no weights"])
def test_missing_and_damaged_files_are_named(content, file, tmp_path):
    path = tmp_path / file
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FormatError, match=f"{file}: .*(no such file|damaged)"):
        read_weights(path)


def test_what_is_no_tensors_by_name_is_refused(tmp_path):
    torch.save([1, 2], tmp_path / "w.pth")
    with pytest.raises(FormatError, match="expected tensors by name"):
        read_weights(tmp_path / "w.pth")


def test_loading_names_the_file_and_the_first_difference():
    with pytest.raises(FormatError, match=r"model.safetensors: .*Missing key\(s\).*conv1.weight"):
        load_weights(small_image_resnet18(3), {}, Path("model.safetensors"))
