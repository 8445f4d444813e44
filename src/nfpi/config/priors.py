"""Settings of prior methods, which determine the class Gaussians, and their registry.

λ is not a setting of a prior, but of experiments.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, SerializeAsAny, model_validator

from nfpi.config.base import NonNegativeFloat, PositiveFloat, PositiveInt, Settings, Start
from nfpi.config.registry import BlockRegistry


class PriorBlock(Settings):
    """Settings common to all blocks of `priors:`. λ is not among them; experiments set it."""

    method: str = "fixed_point"
    """name of the method in the registry"""
    start: Start = "data"
    """initial Gaussians: class means with the class variances (data), with one variance per class (isotropic) or with
    identity covariances (identity), or means drawn from N(0, I) with identity covariances (random)"""


class PriorRegistry(BlockRegistry[PriorBlock]):
    """The registry of prior methods."""

    def list_arguments(self, traits: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the arguments of a builder; statistics are passed only if the Gaussians are fitted once."""
        return ("initial", "weight", "settings") if traits.get("learned") else self.arguments


PRIORS = PriorRegistry("prior method", "method", PriorBlock, ("statistics", "initial", "weight", "settings"))
"""Traits: `uses_weight`, whether λ matters; `learned`, whether the Gaussians are learned along with the flow rather
than fitted once by the builder; `keeps_initial_at_zero`, whether experiments at λ = 0 keep the initial Gaussians
instead of fitting them, and share the paper's baseline run (called directly, these methods do fit at λ = 0)."""

PriorConfig = Annotated[SerializeAsAny[PriorBlock], BeforeValidator(PRIORS.validate), PRIORS]
"""A block of `priors:`: its method, `start`, and the settings of that method."""


class FixedPointSettings(Settings):
    """Settings of the fixed-point iteration of Proposition 1, without λ."""

    alpha: PositiveFloat = 10.0
    """α of Eq. 3"""
    scale: Literal["pairwise", "average"] = "pairwise"
    """π of Eq. 3: the KLD of each pair (Eq. 9), or the mean over all pairs (Eq. 10)"""
    update: Literal["released", "exact"] = "released"
    """`exact`: Eqs. 5-7 as derived from Eq. 4; `released` (diagonal covariances only): the authors' code, with A′ = ΣAΣ
    instead of A, class variances about the class mean, `isotropic_mean_update` and `pooled_mean_gaps`"""
    fit_mean: bool = True
    """whether means are fitted; otherwise they keep their initial values"""
    fit_variance: bool = True
    """whether variances are fitted; otherwise they keep their initial values"""
    unbiased_variance: bool = True
    """whether class variances of the latents have the divisor N − 1, or N as in Eq. 7"""
    isotropic_variance: bool = False
    """whether Σ_i = v_i I, one variance per class; `start: isotropic` gives initial Gaussians of this form too"""
    isotropic_mean_update: bool = True
    """released update: whether the mean update averages Σ_i and Σ_j⁻¹ over the dimensions"""
    pooled_mean_gaps: bool = True
    """released update: whether A uses the sum of Δ_kj² over all classes k instead of Δ_ij²"""
    tolerance: NonNegativeFloat = 0.1
    """the iteration converges when max_i ‖δμ_i‖₂ and max_i ‖δv_i‖₂ (Frobenius for matrices) are at most this"""
    max_iterations: PositiveInt = 1000
    """maximum number of iterations, after which the iteration stops without convergence"""


DEFAULT_RELATIVE_WEIGHT = 1.0
"""s₀ of a fit for which neither s₀ nor λ is given, and the middle of those that `nfpi new` compares"""


def get_alpha(block: PriorBlock) -> float | None:
    """Return α of a block of `priors:`; None: its method has none."""
    alpha: float | None = getattr(PRIORS.extract_settings(block), "alpha", None)
    return alpha


def compute_weight(relative_weight: float, alpha: float, num_classes: int, num_dimensions: int) -> float:
    """Return λ = s₀ α K D e^(1/α) / 2, rounded to four significant digits.

    With s = (1/KD) Σ_y (μ_y − μ̄)ᵀ Σ_y⁻¹ (μ_y − μ̄), the separation of the fitted Gaussians, and β, the regression of the
    class means of the latents on μ_y (1: they coincide), the fixed point of the means (Eq. 5 with pairwise π and Σ = I)
    satisfies s (1 − β) = s₀. s₀ has the same meaning for every number of classes and dimensions.

    Args:
        relative_weight: s₀, the relative weight of the repulsion.
        alpha: α of Eq. 3.
        num_classes: K.
        num_dimensions: D, the number of values of an image.
    """
    weight = relative_weight * alpha * num_classes * num_dimensions * math.exp(1 / alpha) / 2
    return float(f"{weight:.4g}")


def compute_relative_weight(weight: float, alpha: float, num_classes: int, num_dimensions: int) -> float:
    """Return s₀ = 2 λ e^(−1/α) / (α K D), the inverse of :func:`compute_weight` without its rounding."""
    return 2 * weight * math.exp(-1 / alpha) / (alpha * num_classes * num_dimensions)


class RepeatedFixedPointSettings(FixedPointSettings):
    """Settings, without λ, of a fixed-point iteration that is repeated during the training of the flow.

    Each fit starts from the current Gaussians and uses the current statistics of all training latents.
    """

    every_epochs: PositiveInt = 1
    """epochs between two fits, the first of which is after `fit_after_epochs`"""


class GradientDescentSettings(Settings):
    """Settings, without λ, of Gaussians learned by gradient descent along with the flow (NFGD).

    `every: epoch` takes one Adam step per epoch, on the statistics of all training latents; `every: step` takes one per
    batch, on its likelihood (as Gaussian-mixture flows do) and, for λ > 0, the repulsion. Variances are
    a·sigmoid(b·s) + c with learned s.
    """

    every: Literal["epoch", "step"] = "epoch"
    """one step per epoch on all training latents, or one per training step of the flow on its batch"""
    objective: Literal["equation_4", "released"] = "equation_4"
    """NLL + λ/(K(K−1)) L_KLD (Eq. 4), or, only with `every: epoch`, the released code's range-normalised
    NLL − w·KLD, with its own schedule of w (no λ)"""
    alpha: PositiveFloat = 10.0
    """α of Eq. 3"""
    scale: Literal["pairwise", "average"] = "pairwise"
    """π of Eq. 3: pairwise (Eq. 9) or average (Eq. 10)"""
    fit_mean: bool = True
    """whether means are learned; otherwise they keep their initial values"""
    fit_variance: bool = True
    """whether variances are learned; otherwise they keep their initial values"""
    learning_rate: PositiveFloat = 0.1
    """η₀ of Adam's step size η(u) = η₀ + (η₁ − η₀) u^power, u from 0 (the first step) to 1 (the end of training)"""
    final_learning_rate: PositiveFloat = 0.001
    """η₁"""
    power: PositiveFloat = 1.0
    """1: linear; > 1: the step size changes slowly at first (the paper's "sublinear"); < 1: fast ("superlinear")"""
    variance_range: PositiveFloat = 1.0
    """a, the width of the range of variances"""
    variance_slope: PositiveFloat = 1.0
    """b, the slope of the sigmoid"""
    smallest_variance: PositiveFloat = 0.25
    """c, the infimum of variances"""

    @model_validator(mode="after")
    def _check_objective(self) -> GradientDescentSettings:
        if self.objective == "released" and self.every == "step":
            raise ValueError("objective: released needs all training latents: expected every = epoch, received step")
        return self


class _WeightedSettings(Settings):
    """Settings of a method together with λ."""

    weight: NonNegativeFloat
    """λ of Eq. 4"""


class FixedPointConfig(_WeightedSettings, FixedPointSettings):
    """λ and the settings of the fixed-point iteration: `FixedPointConfig(weight=1e4, update="exact")`."""


class RepeatedFixedPointConfig(FixedPointConfig, RepeatedFixedPointSettings):
    """λ and the settings of repeated fits: `RepeatedFixedPointConfig(weight=1e4, every_epochs=10)`."""


class GradientDescentConfig(_WeightedSettings, GradientDescentSettings):
    """λ and the settings of the gradient descent: `GradientDescentConfig(weight=1e4, power=2)`.

    The released code optimises its objective with another schedule of step sizes: 0.1 → 0.1 → 0.01 → 0.001 at epochs 0,
    10, 11 and 100, interpolated linearly or geometrically.
    """

    def step_size(self, progress: float) -> float:
        """Return η(u), where `progress` is u, the completed share of the training after `fit_after_epochs`."""
        share: float = progress**self.power
        return self.learning_rate + (self.final_learning_rate - self.learning_rate) * share


_FIXED_POINT = {"uses_weight": True, "keeps_initial_at_zero": True}
PRIORS.register("fixed_point", FixedPointSettings, "nfpi.priors.fixed_point:fit_prior", learned=False, **_FIXED_POINT)
PRIORS.register(
    "repeated_fixed_point",
    RepeatedFixedPointSettings,
    "nfpi.priors.repeated_fixed_point:make_learner",
    learned=True,
    **_FIXED_POINT,
)
PRIORS.register(
    "gradient_descent",
    GradientDescentSettings,
    "nfpi.priors.gradient_descent:make_learner",
    uses_weight=True,
    learned=True,
)


@dataclass(frozen=True)
class LearnedMethod:
    """A method that learns the Gaussians along with the flow, with λ and its settings.

    Attributes:
        name: name of the method in the registry.
        weight: λ.
        settings: settings of the method.

    Raises:
        ConfigError: unknown method.
        ValueError: the method fits the Gaussians once.
    """

    name: str
    weight: float
    settings: Settings

    def __post_init__(self) -> None:
        if not PRIORS[self.name].traits["learned"]:
            raise ValueError(f"expected a method that learns the Gaussians along with the flow, received {self.name}")

    @classmethod
    def from_block(cls, block: PriorBlock, weight: float) -> LearnedMethod:
        """Return the method of a block of `priors:` with λ."""
        return cls(block.method, weight, PRIORS.extract_settings(block))

    @classmethod
    def from_json(cls, name: str, values: dict[str, Any]) -> LearnedMethod:
        """Return a method from its name and the result of :meth:`to_json`.

        Raises:
            KeyError: λ is missing.
            ValueError: invalid setting.
        """
        settings = {key: value for key, value in values.items() if key != "weight"}
        return cls(name, values["weight"], PRIORS[name].settings.model_validate(settings))

    def to_json(self) -> dict[str, Any]:
        """Return λ (`weight`) and the settings."""
        return {"weight": self.weight, **self.settings.model_dump(mode="json")}
