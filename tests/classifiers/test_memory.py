"""What saves memory changes no gradient."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nfpi.classifiers import build_classifier
from nfpi.classifiers.training import checkpoint_activations, fuse_attention
from nfpi.config.classifiers import ClassifierConfig

TINY = {
    "swin": {"embed_dim": 12, "depths": [2, 1], "num_heads": [1, 2], "window_size": 2, "drop_path_rate": 0.5},
    "eva02": {"patch_size": 4, "embed_dim": 16, "depth": 3, "num_heads": 2, "drop_path_rate": 0.5},
}


def tiny(name: str) -> nn.Module:
    torch.manual_seed(0)
    return build_classifier(ClassifierConfig(model=name, architecture=TINY[name]), 3, 3, 16).train()


def step(model: nn.Module) -> tuple[dict[str, torch.Tensor], int]:
    """Gradients of a loss, and the bytes of what was kept for them besides the weights."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, tuple[int, torch.Tensor]] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes(), tensor
        return tensor

    torch.manual_seed(1)
    images = torch.randn(6, 3, 16, 16)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = nn.functional.cross_entropy(model(images), torch.arange(6) % 3)
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert gradients
    return gradients, sum(size for size, _ in kept.values())


@pytest.mark.parametrize("name", TINY)
def test_gradients_of_activations_computed_again_are_equal_bit_for_bit(name):
    """Under random depth too: random numbers are the same the second time."""
    plain, again = tiny(name), tiny(name)
    checkpoint_activations(again)
    (expected, kept), (found, fewer) = step(plain), step(again)
    assert found.keys() == expected.keys()
    for parameter, gradient in expected.items():
        assert torch.equal(gradient, found[parameter]), parameter
    assert fewer < kept / 2


def test_a_model_that_cannot_compute_them_again_is_refused():
    with pytest.raises(ValueError, match="checkpoint_activations"):
        checkpoint_activations(build_classifier(ClassifierConfig(), 3, 1, 8))


@pytest.mark.parametrize("name", TINY)
def test_every_attention_is_fused_on_a_gpu_and_stays_as_it_is_on_a_cpu(name, monkeypatch):
    monkeypatch.setattr("timm.layers.config._USE_FUSED_ATTN", 0)  # TIMM_FUSED_ATTN=0
    model = tiny(name)
    attentions = [module for module in model.modules() if hasattr(module, "num_heads") and hasattr(module, "proj")]
    assert len(attentions) == 3
    fuse_attention(model, torch.device("cpu"))
    assert not any(module.fused_attn for module in attentions)
    expected, _ = step(model)
    model.zero_grad()
    fuse_attention(model, torch.device("cuda"))
    assert all(module.fused_attn for module in attentions)
    found, _ = step(model)
    for parameter, gradient in expected.items():
        torch.testing.assert_close(found[parameter], gradient, rtol=1e-3, atol=1e-5)
