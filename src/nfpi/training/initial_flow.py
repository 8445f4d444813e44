"""The flow of an initial state: built, initialised on images, and checked on some of them."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch

from nfpi.config.flows import FLOWS
from nfpi.flows.bijection import ImageFlow
from nfpi.flows.check import FlowError, check_flow
from nfpi.flows.registry import build_flow
from nfpi.runtime.precision import full_precision
from nfpi.training.batches import TrainingData, draw_initialization_images
from nfpi.training.state import TrainingState

_CHECKED_IMAGES = 4
_TOLERANCE = 0.02
"""largest error accepted in float64: the same as that accepted by default in float32"""


def initialize_flow(description: Mapping[str, Any], data: TrainingData, seed: int) -> ImageFlow:
    """Build a flow, initialise it on images, and check its shapes, inverse and log-determinants on some of them.

    Raises:
        FlowError: the flow fails :func:`nfpi.flows.check.check_flow`.
    """
    flow = build_flow(description).to(data.device)
    images = draw_initialization_images(data, seed)
    with torch.no_grad():
        flow.initialize(images)
    check_flow(flow, images[:_CHECKED_IMAGES], jacobian=False)
    return flow


@full_precision()
def check_trained_flow(state: TrainingState, data: TrainingData) -> None:
    """Repeat the check of :func:`initialize_flow`, on the same images, for a trained flow that an extension registered.

    Couplings that begin with zeros pass the first check whatever their formulas are. The flow and the global random
    generators stay as they are.

    Args:
        state: state of the training; without a finished epoch nothing is checked.
        data: images and settings of the training.

    Raises:
        FlowError: the flow fails the check.
    """
    flow = state.flow
    if FLOWS[flow.kind].extension is None or not state.log:
        return
    images = draw_initialization_images(data, state.seed, _CHECKED_IMAGES)
    gpus = [data.device] if data.device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):  # a flow may draw random numbers
        try:
            check_flow(flow, images, jacobian=False)
        except FlowError as fault:
            if not _passes_in_float64(flow, images):
                raise FlowError(
                    f"training: after epoch {len(state.log)}: {fault} (a wrong formula, or, with a learning rate that "
                    "is too large, weights with which the flow cannot be inverted)"
                ) from None


def _passes_in_float64(flow: ImageFlow, images: torch.Tensor) -> bool:
    """Return whether a flow passes the check in float64, so that only rounding in float32 made it fail."""
    try:
        check_flow(deepcopy(flow).double(), images.double(), jacobian=False, tolerance=_TOLERANCE)
    except (FlowError, RuntimeError, TypeError):  # TypeError: the device has no float64
        return False
    return True
