"""Reduce the memory of training transformers: fused attention and activation checkpointing."""

from __future__ import annotations

import torch
from torch import nn


def fuse_attention(model: nn.Module, device: torch.device) -> None:
    """Make timm's attention layers use torch's fused kernels on a GPU; on a CPU, do nothing.

    A fused kernel does not keep the scores of all pairs of tokens for the backward pass. timm's Swin does not use these
    kernels by default, and `TIMM_FUSED_ATTN=0` disables them for all models; here they are used regardless.
    """
    if device.type == "cuda":
        for module in model.modules():
            if hasattr(module, "fused_attn"):
                module.fused_attn = True  # type: ignore[assignment]  # typed as a tensor or a module


def checkpoint_activations(model: nn.Module) -> None:
    """Make a model of timm recompute the activations inside its blocks in the backward pass.

    The recomputation uses the same random numbers, so the gradients do not change.

    Raises:
        ValueError: the model does not support it.
    """
    set_checkpointing = getattr(model, "set_grad_checkpointing", None)
    if set_checkpointing is None:
        raise ValueError(
            "checkpoint_activations: expected false for a model without timm's set_grad_checkpointing, received true "
            f"for {type(model).__name__}"
        )
    try:
        set_checkpointing(True)
    except AssertionError as error:  # timm's models that have the method but do not support it
        raise ValueError(
            f"checkpoint_activations: expected false for {type(model).__name__}, received true ({error})"
        ) from None
