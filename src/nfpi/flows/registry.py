"""Registry of the kinds of flows, and construction of a flow from its description and weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import isabstract
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field
from torch import Tensor

from nfpi.config.base import ConfigError, PositiveInt, Settings
from nfpi.config.flows import FLOWS, FlowBlock
from nfpi.flows.bijection import ImageFlow, skip_initialization
from nfpi.flows.check import FlowError
from nfpi.runtime.formats import FormatError, Record, check_record
from nfpi.runtime.precision import standard_defaults
from nfpi.runtime.tensors import load_state

_COUNTS = ("num_flows", "num_blocks", "depth")
"""Settings of the built-in flows that count layers; every layer has at least one weight."""

Builder = TypeVar("Builder", bound=Callable[..., ImageFlow])


def register_flow(kind: str, settings: type[Settings] = Settings) -> Callable[[Builder], Builder]:
    """Register a class or function (shape, settings) as the builder of flows with `kind: {kind}` in config.yaml.

    Args:
        kind: name of the kind.
        settings: settings class of the kind.

    Raises:
        ConfigError: the name is taken; or the class or function has other arguments.
        FlowError: a class has no `forward` or no `inverse`.

    Examples:
        >>> from nfpi.config import Settings
        >>> class PlanarSettings(Settings):
        ...     layers: int = 4
        >>> @register_flow("planar", PlanarSettings)  # doctest: +SKIP
        ... class PlanarFlow(ImageFlow): ...
    """

    def register(builder: Builder) -> Builder:
        backbone = builder if isinstance(builder, type) and issubclass(builder, ImageFlow) else None
        if backbone is not None and isabstract(backbone):
            missing = " and ".join(sorted(backbone.__abstractmethods__))
            raise FlowError(f"flow '{kind}': expected a class with {missing}, received {backbone.__name__} without")
        FLOWS.register(kind, settings, builder)
        if backbone is not None:
            backbone.kind = kind
        return builder

    return register


def describe_flow(block: FlowBlock, shape: Sequence[int]) -> dict[str, Any]:
    """Return the description of a block of `flows:` for images (C, H, W), see :attr:`ImageFlow.description`."""
    settings = FLOWS.extract_settings(block).model_dump(mode="json")
    return {"kind": block.kind, "shape": list(shape), "settings": settings}


def refuse_trained(shape: tuple[int, int, int], settings: Settings) -> ImageFlow:
    """Raise ValueError: a block of kind `trained` names a model, which has a flow of another kind."""
    raise ValueError("flow: expected a kind of flow to be trained, received trained")


def build_flow(
    description: Mapping[str, Any], weights: Mapping[str, Tensor] | None = None, path: Path | None = None
) -> ImageFlow:
    """Build a flow from :attr:`ImageFlow.description`.

    Args:
        description: `kind`, `shape` and `settings`.
        weights: state_dict of the flow, which is copied; None: parameters are initialised randomly.
        path: file of the description and the weights, named in errors.

    Raises:
        ConfigError: the kind is unknown, perhaps because the file that registers it was not loaded.
        ValueError: the settings or the shape are invalid.
        FlowError: the builder does not return an ImageFlow of this shape.
        TypeError: the class of the flow has no `forward` or no `inverse`.
        FormatError: weights are given, and they or the description are invalid.
    """
    if weights is None:
        return _build(description)
    prefix = f"{path}: " if path else ""
    try:
        check_description(description, path)
        if FLOWS[description["kind"]].extension is None:
            _require_possible(description["settings"], weights)
        with skip_initialization():
            flow = _build(description)
        load_state(flow, weights)
        return flow
    except (ConfigError, FlowError, FormatError):
        raise
    except (KeyError, TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        reason = " ".join(line.strip() for line in str(error).splitlines()[:2])
        raise FormatError(f"{prefix}expected the weights of a flow, received others ({reason})") from None


@standard_defaults()
def _build(description: Mapping[str, Any]) -> ImageFlow:
    variant = FLOWS[description["kind"]]
    settings = check_record(variant.settings, description["settings"], None, "the settings of a flow")
    shape = tuple(description["shape"])
    flow: ImageFlow = variant.build(shape, settings)
    if not isinstance(flow, ImageFlow):
        raise FlowError(
            f"flow '{variant.name}': expected its builder to return an ImageFlow, received {type(flow).__name__}"
        )
    if flow.shape != shape:
        raise FlowError(f"flow '{variant.name}': expected images of shape {shape}, received a flow of {flow.shape}")
    flow.kind, flow.settings = variant.name, settings
    return flow


class _Description(Record):
    kind: str
    shape: Annotated[list[PositiveInt], Field(min_length=3, max_length=3)]
    settings: dict[str, Any]


def check_description(description: object, path: Path | None) -> None:
    """Check the description of a flow that was read from `path`.

    Raises:
        ConfigError: the kind is unknown, perhaps because the file that registers it was not loaded.
        FormatError: the description is invalid.
    """
    prefix = f"{path}: " if path else ""
    found = check_record(_Description, description, path, "the description of a flow")
    try:
        variant = FLOWS[found.kind]
    except ConfigError as error:
        advice = (
            'for a flow of your own load its file first: nfpi.config.load_extensions(["my_flow.py"]), in a shell '
            "nfpi --extensions my_flow.py …"
        )
        raise ConfigError(f"{prefix}{error}; {advice}") from None
    check_record(variant.settings, found.settings, path, "the settings of a flow")


def _require_possible(settings: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Raise ValueError for more layers than weights, which might take hours to build."""
    flows = settings.get("num_flows")
    for name in _COUNTS:
        counts = settings.get(name, 0)
        if name == "num_blocks" and isinstance(counts, list) and isinstance(flows, list):
            counts = [count for count, steps in zip(counts, flows, strict=False) if steps]  # no step: no blocks
        for count in counts if isinstance(counts, list) else [counts]:
            if isinstance(count, int) and count > len(weights):
                expected = f"at most {len(weights)}, the number of weight tensors"
                raise ValueError(f"{name}: expected {expected}, received {count}")
