"""Memory of transformers while they train: attention in one kernel, activations that are computed again."""

from __future__ import annotations

import torch
from torch import nn


def fuse_attention(model: nn.Module, device: torch.device) -> None:
    """Let timm's attention layers use torch's fused kernels on a GPU, whatever timm's own switches say.

    A fused kernel keeps no scores of all pairs of tokens for the backward pass. On a CPU nothing changes, nor do
    results. timm's Swin has the kernels switched off by default, and `TIMM_FUSED_ATTN=0` switches them off for all.
    """
    if device.type == "cuda":
        for module in model.modules():
            if hasattr(module, "fused_attn"):
                module.fused_attn = True  # type: ignore[assignment]  # torch knows tensors and modules only


def checkpoint_activations(model: nn.Module) -> None:
    """Let a model of timm compute the activations inside of its blocks again in the backward pass.

    Random numbers are the same the second time, so the gradients are.

    Raises:
        ValueError: the model has no such switch.
    """
    switch = getattr(model, "set_grad_checkpointing", None)
    if switch is None:
        raise ValueError(
            "checkpoint_activations: expected false for a model without timm's set_grad_checkpointing, received true "
            f"for {type(model).__name__}"
        )
    switch(True)
