"""Conversion of checkpoints of the authors' release to a flow and class Gaussians of this project.

Such a file is a Lightning checkpoint with a `state_dict` and with hyper-parameters that are OmegaConf objects. It is
read by torch's weights-only loader, which builds only tensors and plain containers, with inert substitutes for the
OmegaConf classes. Neither Lightning nor OmegaConf is needed, and nothing in the file is executed.
"""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nfpi.flows.bijection import skip_initialization
from nfpi.flows.matrix_exponential import MatrixExponentialFlow
from nfpi.priors.gaussian import GaussianPrior
from nfpi.runtime.faults import format_error
from nfpi.runtime.formats import FormatError
from nfpi.runtime.precision import standard_defaults
from nfpi.runtime.tensors import load_state, require_finite, verify_archive

_ONLINE_PREFIX, _AVERAGED_PREFIX = "flow.", "ema.ema_model."

_LAYER_PATTERN = re.compile(r"blocks\.(\d+)\.(\d+)\.(.+)")

_RENAMINGS = (
    (re.compile(r"^conv1x1\."), "linear."),
    (re.compile(r"^couplinglayer\.net\.out_layer\."), "coupling.net.out."),
    (re.compile(r"^couplinglayer\.net\.layers\.0\."), "coupling.net.head."),
    (re.compile(r"^couplinglayer\.net\.layers\.(\d+)\."), lambda m: f"coupling.net.blocks.{int(m[1]) - 1}."),
    (re.compile(r"^couplinglayer\."), "coupling."),
    (re.compile(r"\.conv\.weight$"), ".weight"),
    (re.compile(r"\.norm\.(scale|shift)$"), r".\1"),
)


class _Inert:
    """Inert substitute for an object of the hyper-parameters, which only stores its state."""

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _make_substitute(name: str) -> tuple[type, str]:
    return type(name.rsplit(".", 1)[1], (_Inert,), {}), name


_SAFE_GLOBALS: list[Any] = [
    *map(
        _make_substitute,
        (
            "omegaconf.dictconfig.DictConfig",
            "omegaconf.listconfig.ListConfig",
            "omegaconf.base.ContainerMetadata",
            "omegaconf.base.Metadata",
            "omegaconf.nodes.AnyNode",
            "typing.Any",
        ),
    ),
    (list, "builtins.list"),
    (dict, "builtins.dict"),
    (int, "builtins.int"),
    (defaultdict, "collections.defaultdict"),
]


@standard_defaults()
def load_release_checkpoint(path: Path | str, averaged: bool = True) -> tuple[MatrixExponentialFlow, GaussianPrior]:
    """Read the flow and the class Gaussians of a released checkpoint.

    The architecture is inferred from the weights: any number of levels and flow steps, low-rank couplings included.

    Args:
        path: checkpoint file.
        averaged: whether to read the averaged (EMA) weights instead of the online ones; Gaussians are never averaged.

    Returns:
        The flow, float32, and its prior of K diagonal Gaussians.

    Raises:
        FormatError: the file is missing or damaged, would execute code, or holds other weights.
    """
    path = Path(path)
    weights = _read_state(path)
    prefix = _AVERAGED_PREFIX if averaged else _ONLINE_PREFIX
    own = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    layers = {key: value for key, value in own.items() if _LAYER_PATTERN.fullmatch(key)}
    if not layers:
        raise FormatError(f"{path}: expected weights under '{prefix}blocks', received none")
    try:
        with skip_initialization():
            flow = MatrixExponentialFlow(**_infer_architecture(layers))
        # scale and shift of the norms are (C, 1, 1) there, (C,) here
        load_state(flow, {_rename(key): value.flatten() if ".norm." in key else value for key, value in layers.items()})
        gaussians = {
            key.removeprefix(_ONLINE_PREFIX): value for key, value in weights.items() if key.startswith(_ONLINE_PREFIX)
        }
        prior = _read_prior(gaussians)
        prior.check()
        require_finite(path, layers)
    except FormatError:
        raise
    except (KeyError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        reason = format_error(error, 200)
        raise FormatError(f"{path}: expected the released layout, received another one ({reason})") from None
    return flow, prior


def _read_state(path: Path) -> dict[str, Tensor]:
    try:
        verify_archive(path)
        with torch.serialization.safe_globals(_SAFE_GLOBALS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # so that only the one line of the error is printed
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise FormatError(f"{path}: there is no such file") from None
    except Exception as error:  # a damaged pickle may raise anything
        refused = re.search(r"GLOBAL (\S+)|Unsupported (?:global|class) (\S+)", str(error))
        reason = f"that refers to {next(filter(None, refused.groups()))}" if refused else "that cannot be read"
        raise FormatError(f"{path}: expected a checkpoint of tensors, received a file {reason}") from None
    state = content.get("state_dict") if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping):
        raise FormatError(f"{path}: expected a checkpoint with a state_dict, received none")
    return {key: value for key, value in state.items() if isinstance(key, str) and isinstance(value, Tensor)}


def _infer_architecture(layers: Mapping[str, Tensor]) -> dict[str, Any]:
    """Infer the arguments of :class:`MatrixExponentialFlow` from its weights."""
    num_flows: list[int] = []
    num_blocks: list[int] = []
    hidden_channels: list[int] = []
    while f"blocks.{len(num_flows)}.0.actnorm.scale" in layers:
        level = len(num_flows)
        flows = {int(m[2]) for m in map(_LAYER_PATTERN.fullmatch, layers) if m and int(m[1]) == level}
        net = f"blocks.{level}.0.couplinglayer.net."
        blocks = {key.removeprefix(f"{net}layers.").split(".")[0] for key in layers if key.startswith(f"{net}layers.")}
        num_flows.append(len(flows))
        num_blocks.append(len(blocks) - 1)
        hidden_channels.append(len(layers[f"{net}layers.0.conv.weight"]))
    channels, height, width = layers["blocks.0.0.actnorm.scale"].shape
    return {
        "shape": (channels // 4, 2 * height, 2 * width),
        "num_flows": num_flows,
        "num_blocks": num_blocks,
        "hidden_channels": hidden_channels,
    }


def _rename(key: str) -> str:
    match = _LAYER_PATTERN.fullmatch(key)
    assert match is not None
    name = match[3]
    for pattern, replacement in _RENAMINGS:
        name = pattern.sub(replacement, name)
    return f"levels.{match[1]}.{match[2]}.{name}"


def _read_prior(weights: Mapping[str, Tensor]) -> GaussianPrior:
    """Read the means, and the variances as squares of the stored scales."""

    def stack(name: str) -> Tensor:
        classes = sum(key.startswith(f"{name}.") for key in weights)
        return torch.stack([weights[f"{name}.{index}"].flatten() for index in range(classes)])

    return GaussianPrior(stack("mu_arr"), stack("scale_tril_arr").square())
