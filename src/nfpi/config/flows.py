"""Settings of backbones, and their registry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationInfo, field_validator, model_validator

from nfpi.config.base import (
    EXECUTION,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    Settings,
    expand_path,
)
from nfpi.config.registry import BlockRegistry
from nfpi.runs import MODEL_FILES


class FlowBlock(Settings):
    """Settings common to all blocks of `flows:`."""

    kind: str = "matrix_exponential"
    """name of the backbone in the registry"""
    training: dict[str, Any] = {}
    """training settings that differ for this backbone"""


FLOWS = BlockRegistry("kind of flow", "kind", FlowBlock, "register_flow", ("shape", "settings"))

FlowConfig = Annotated[SerializeAsAny[FlowBlock], BeforeValidator(FLOWS.validate), FLOWS]
"""A block of `flows:`: its kind, the settings of that kind, and `training`."""


class LevelSettings(Settings):
    """Settings of a multiscale flow, one entry per level."""

    num_flows: list[NonNegativeInt]
    """flow steps of each level"""

    @model_validator(mode="after")
    def _check_entries_per_level(self) -> LevelSettings:
        counts = {name: len(value) for name, value in self if isinstance(value, list)}
        if len(set(counts.values())) != 1 or not self.num_flows:
            received = ", ".join(map(str, counts.values()))
            raise ValueError(f"{', '.join(counts)}: expected one entry per level, received {received}")
        return self


class MatrixExponentialSettings(LevelSettings):
    """Settings of the paper's backbone, one entry per level (Xiao and Liu, 2020)."""

    num_flows: list[NonNegativeInt] = [8, 8, 8]
    """flow steps (actnorm, 1×1 convolution, coupling) of each level"""
    num_blocks: list[NonNegativeInt] = [8, 4, 2]
    """residual blocks of each level's coupling nets"""
    hidden_channels: list[PositiveInt] = [128, 128, 128]
    """width of each level's coupling nets"""
    coupling: Literal["matrix_exponential", "affine", "additive"] = "matrix_exponential"
    """y₂ = e^{S(x₁)} x₂ + b(x₁) with a full matrix S (of rank 3 if x₂ has more than 24 channels), a diagonal one, or
    S = 0"""
    initialization: Literal["normal", "uniform"] = "normal"
    """initial kernels of the coupling nets. normal: normal kernels, with a scale per channel that normalises their
    outputs; uniform, as in the released code: uniform kernels, divided by the standard deviation of their outputs"""


class GlowSettings(LevelSettings):
    """Settings of Glow, one entry per level (Kingma and Dhariwal, 2018)."""

    num_flows: list[NonNegativeInt] = [32, 32, 32]
    """flow steps (actnorm, 1×1 convolution, affine coupling) of each level"""
    hidden_channels: list[PositiveInt] = [512, 512, 512]
    """width of each level's coupling nets"""


class TransformerSettings(Settings):
    """Settings of a coupling flow of transformer blocks on patches, as in Jet (Kolesnikov et al., 2024)."""

    patch_size: PositiveInt = 4
    """size of a patch, in pixels"""
    num_flows: PositiveInt = 32
    """coupling layers"""
    depth: PositiveInt = 2
    """transformer blocks per coupling"""
    width: PositiveInt = 256
    """embedding dimension of a token"""
    num_heads: PositiveInt = 4
    """attention heads; a divisor of the width"""
    channel_couplings: NonNegativeInt = 4
    """couplings that split channels for each one that splits patches (1: they alternate)"""

    @model_validator(mode="after")
    def _check_num_heads(self) -> TransformerSettings:
        if self.width % self.num_heads:
            raise ValueError(f"num_heads: expected a divisor of width {self.width}, received {self.num_heads}")
        return self


class TrainedSettings(Settings):
    """A model that was trained elsewhere: experiments train nothing, and have its own prior and λ."""

    # before `model`, whose meaning depends on it
    revision: Annotated[str, Field(pattern="^[0-9a-f]{40}$")] | None = None
    """commit of a model of the Hugging Face hub, which is downloaded; None: the model is on this machine"""
    model: Annotated[str, EXECUTION]
    """folder of a model, or file of a checkpoint of the authors' release; with a revision, id of a model of the hub"""
    averaged: bool = True
    """whether the averaged (EMA) weights of a checkpoint are used instead of the online ones"""
    weight: NonNegativeFloat | None = Field(None, alias="lambda")
    """λ of its training; None: that recorded in the folder of a model, otherwise 0"""

    @field_validator("model", mode="before")
    @classmethod
    def _expand_model(cls, model: Any, info: ValidationInfo) -> Any:
        return model if info.data.get("revision") or not isinstance(model, str) else str(expand_path(model))

    def read_weight(self) -> Any:
        """Return λ, not validated: that which is set, or that recorded in the folder of a model, otherwise 0."""
        if self.weight is not None or self.revision is not None:
            return self.weight or 0.0
        try:
            config = json.loads((Path(self.model) / MODEL_FILES["config"]).read_text(encoding="utf-8"))
            return config["prior"]["lambda"] or 0.0
        except (OSError, ValueError, LookupError, TypeError, RecursionError):  # named when the model is imported
            return 0.0


FLOWS.register("matrix_exponential", MatrixExponentialSettings, "nfpi.flows.matrix_exponential:matrix_exponential_flow")
FLOWS.register("glow", GlowSettings, "nfpi.flows.glow:GlowFlow")
FLOWS.register("transformer", TransformerSettings, "nfpi.flows.transformer:TransformerFlow")
FLOWS.register("trained", TrainedSettings, "nfpi.flows.registry:refuse_trained")
