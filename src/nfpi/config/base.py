"""Types that settings are made of."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$")]

Split = Literal["train", "validation", "test"]
Start = Literal["data", "identity", "random"]
Source = Literal["digits", "fashion_mnist", "cifar10", "cifar100", "imagefolder"]
Augmentation = Literal["none", "standard", "nfa", "standard+nfa"]

BASELINE: dict[Start, str] = {"data": "baseline", "identity": "baseline-identity", "random": "baseline-random"}
"""Where λ = 0 of the fixed point lives: the initial Gaussians, kept, are the same for every prior with that start."""


class ConfigError(ValueError):
    """A setting that is missing, unknown or out of range; its message is one line and names the key."""


class Settings(BaseModel):
    """A group of knobs: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def _with_variables(text: Any) -> Any:
    """Environment variables stand for what they hold; one that is not set is named."""
    if not isinstance(text, str):
        return text
    expanded = os.path.expandvars(text)
    missing = re.search(r"\$\{?\w+\}?", expanded)
    if missing:
        raise ValueError(f"environment variable {missing[0]} is not set")
    return expanded


def _expand(path: Any) -> Any:
    """Environment variables and `~` stand for folders."""
    expanded = _with_variables(path)
    return Path(expanded).expanduser() if isinstance(expanded, str) else expanded


LocalPath = Annotated[Path, BeforeValidator(_expand)]
"""A path of this machine; `$SCRATCH` and the like may stand in it."""
ExpandedText = Annotated[str, BeforeValidator(_with_variables)]
"""A text in which environment variables may stand."""
