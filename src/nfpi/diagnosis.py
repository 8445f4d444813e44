"""Class Gaussians on the latents of any flow: accuracy, density, and whether the latents follow them."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from nfpi.config.priors import FixedPointConfig, FixedPointSettings, compute_weight
from nfpi.flows.bijection import evaluating
from nfpi.model import ClassConditionalFlow
from nfpi.model.inference import strict_inference
from nfpi.model.inputs import check_labels, choose_class_names
from nfpi.priors.fixed_point import FixedPointDiverged, fit_fixed_point
from nfpi.priors.following import estimate_moments, measure_following
from nfpi.priors.gaussian import GaussianPrior
from nfpi.priors.statistics import ClassStatistics
from nfpi.results.metrics import compute_metrics

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_BATCH = 1000
Transform = Callable[[Any], tuple[Tensor, Tensor]]


def diagnose(
    flow: Any,
    train: tuple[Any, Any],
    test: tuple[Any, Any],
    *,
    prior: GaussianPrior | None = None,
    relative_weights: Sequence[float] = (0.2, 1.0, 5.0),
) -> pd.DataFrame:
    """Compare class Gaussians on the latents of a flow that was trained anywhere: its own, moments and fixed points.

    The flow stays as it is, and a module is measured in evaluation mode. A flow that was trained under other Gaussians
    has latents that do not follow a fixed point (`mismatch` is large), so the rows say what its latents allow, not what
    a training under these Gaussians would give.

    Args:
        flow: a :class:`nfpi.ClassConditionalFlow`; a flow, transform or lazy transform of zuko without context; or a
            function or module with flow(x) = (z, log |det ∂z/∂x|), z (B, D) or (B, C, H, W) and (B,), tensors
            or arrays.
        train: inputs of the flow and labels (N,), indices of classes or their names; the Gaussians are fitted to their
            latents. Arrays and data frames become tensors, float32.
        test: other inputs and labels, which are measured.
        prior: Gaussians of the flow; None: those of a `ClassConditionalFlow`, otherwise none.
        relative_weights: s₀ of each fixed point, see :func:`nfpi.config.priors.compute_weight`.

    Returns:
        A row for each set of Gaussians: `gaussians` (`own`, `moments` or `fixed point`) and `relative_weight` (0 for
        moments); `nf_acc`, `bits_per_dim` and `ece` of the test inputs; and of the training latents `separation` of the
        Gaussians, `beta` and `mismatch` (:class:`nfpi.priors.following.Following`). Bits/dim are those of x, for a
        `ClassConditionalFlow` those of :meth:`nfpi.ClassConditionalFlow.evaluate`, but with new noise for each image. A
        fixed point that diverges has only NaN.

    Raises:
        ValueError: the flow returns something else or numbers that are not finite, or its latents are constant.
    """
    import pandas as pd

    own: GaussianPrior | None
    if isinstance(flow, ClassConditionalFlow):
        own, to_bits, classes = prior or flow.prior, flow.domain.bits_per_dim, flow.classes
    else:
        own, to_bits, classes = prior, _to_bits, choose_class_names(train[1])
    transform, is_full = _as_function(flow), own is not None and own.is_full
    with evaluating(flow):
        z, _, labels = _encode(transform, *train, classes, "train")
        test_z, log_abs_det, test_labels = _encode(transform, *test, classes, "test")
    num_classes, dimensions = len(classes), z.shape[1]
    statistics = ClassStatistics.from_latents(z, labels, num_classes, covariance=is_full)
    try:
        statistics.check()
    except ValueError as error:
        raise ValueError(
            f"train: expected latents that vary within each of {num_classes} classes (labels count from 0), received "
            f"others ({error})"
        ) from None
    if own is not None and (own.num_classes, own.num_dimensions) != (num_classes, dimensions):
        expected, received = (num_classes, dimensions), (own.num_classes, own.num_dimensions)
        raise ValueError(f"prior: expected (K, D) = {expected} of train, received {received}")

    def measure(gaussians: GaussianPrior) -> dict[str, float | None]:
        log_prob = gaussians.to(dtype=torch.float64).to("cpu").log_prob(test_z) + log_abs_det[:, None]
        found = measure_following(gaussians, statistics)
        nll = -log_prob.gather(1, test_labels[:, None]).mean()
        return {
            "nf_acc": 100 * float((log_prob.argmax(1) == test_labels).double().mean()),
            "bits_per_dim": float(to_bits(nll, dimensions)),
            **compute_metrics(["ece"], log_prob, test_labels),
            "separation": found.prior_separation,
            "beta": found.beta,
            "mismatch": found.mismatch,
        }

    rows: list[dict[str, Any]] = [] if own is None else [{"gaussians": "own", **measure(own)}]
    rows.append({"gaussians": "moments", "relative_weight": 0.0, **measure(estimate_moments(statistics))})
    for relative_weight in relative_weights:
        row = {"gaussians": "fixed point", "relative_weight": relative_weight}
        weight = compute_weight(relative_weight, FixedPointSettings().alpha, num_classes, dimensions)
        config = FixedPointConfig(weight=weight, update="exact" if is_full else "released")
        try:
            rows.append(row | measure(fit_fixed_point(statistics, config).prior))
        except FixedPointDiverged:
            rows.append(row)
    columns = ["gaussians", "relative_weight", "nf_acc", "bits_per_dim", "ece", "separation", "beta", "mismatch"]
    return pd.DataFrame(rows, columns=columns)


def draw_diagnosis(diagnosis: pd.DataFrame) -> Figure:
    """Draw NF-Acc against bits/dim of the result of :func:`diagnose`, with s₀ beside the fixed points."""
    from nfpi.figures.frontier import draw_frontier

    table = diagnosis.rename(columns={"relative_weight": "lambda"})
    table = table.assign(row=table["gaussians"], prior=table["gaussians"], dataset="", flow="", top1=float("nan"))
    return draw_frontier(table.fillna({"lambda": 0.0}))


def _to_bits(nll: Tensor, num_dimensions: int) -> Tensor:
    return nll / (num_dimensions * math.log(2))


def _as_function(flow: Any) -> Transform:
    """Return x ↦ (z, log |det ∂z/∂x|) of a flow in any form."""
    if isinstance(flow, ClassConditionalFlow):
        generator = torch.Generator(flow.device).manual_seed(0)

        def encode(images: Any) -> tuple[Tensor, Tensor]:
            stored = torch.from_numpy(flow._check_images(images)).permute(0, 3, 1, 2).to(flow.device)
            with strict_inference(flow.flow):
                encoded: tuple[Tensor, Tensor] = flow.flow(flow.domain.to_flow(stored, generator))
            return encoded

        return encode
    transform = getattr(flow, "transform", flow)  # of a flow of zuko
    if "zuko" in sys.modules and isinstance(transform, sys.modules["zuko"].lazy.LazyTransform):
        transform = transform()
    function: Transform = getattr(transform, "call_and_ladj", transform)

    def apply(x: Any) -> tuple[Tensor, Tensor]:
        return function(torch.tensor(x, dtype=torch.float32) if isinstance(x, np.ndarray) else x)

    return apply


@torch.no_grad()
def _encode(function: Transform, x: Any, labels: Any, classes: list[str], what: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return latents (N, D), log-determinants (N,), float64, and labels (N,), on the CPU.

    Raises:
        ValueError: the labels are no indices of classes; or the flow returns something else, or no finite numbers.
    """
    x = x.to_numpy() if hasattr(x, "to_numpy") else x  # a data frame
    indices = torch.from_numpy(check_labels(labels, classes, len(x), f"{what}: labels"))
    latents, log_abs_dets = [], []
    for begin in range(0, len(x), _BATCH):
        batch = x[begin : begin + _BATCH]
        result = function(batch)
        found = [tuple(part.shape) for part in result] if isinstance(result, tuple) else [type(result).__name__]
        if len(found) != 2 or len(found[0]) < 2 or found[0][0] != len(batch) or found[1] != (len(batch),):
            expected = f"latents ({len(batch)}, …) and log-determinants ({len(batch)},)"
            raise ValueError(f"flow: expected {expected}, received {' and '.join(map(str, found))}")
        z, log_abs_det = map(torch.as_tensor, result)  # they may be arrays
        latents.append(z.flatten(1).double().cpu())
        log_abs_dets.append(log_abs_det.double().cpu())
    all_latents, all_log_abs_dets = torch.cat(latents), torch.cat(log_abs_dets)
    if not (all_latents.isfinite().all() and all_log_abs_dets.isfinite().all()):
        raise ValueError(f"flow: expected finite latents and log-determinants of {what}, received NaN or infinity")
    return all_latents, all_log_abs_dets, indices
