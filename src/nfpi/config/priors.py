"""Ways to obtain the class Gaussians: the settings of each, and the registry that `priors:` selects from by `method:`.

λ is never a setting of a prior: experiments name it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, SerializeAsAny, ValidationError, model_validator

from nfpi.config.base import NonNegativeFloat, PositiveFloat, PositiveInt, Settings, Start, added_setting, explain
from nfpi.config.registry import BlockRegistry


class PriorBlock(Settings):
    """What every block under `priors:` has. λ is never a setting of a prior: experiments name it."""

    method: str = "fixed_point"
    """how the Gaussians are obtained"""
    start: Start = "data"
    """initial Gaussians: class means with the class variances (data), with one variance a class (isotropic) or with
    identity covariances (identity), or means drawn from N(0, I) with identity covariances (random)"""


PRIORS = BlockRegistry("prior method", "method", PriorBlock)
"""Traits: `uses_weight`, whether λ matters; `learned`, whether the Gaussians are learned along with the flow (the
builder is not called then), and otherwise fitted once, by the builder; `keeps_initial_at_zero`, whether λ = 0 leaves
the initial Gaussians as they are, so that the run is the baseline that all such methods share. That is a choice of the
experiments, for λ = 0 without any fit is the paper's baseline; the methods themselves fit at λ = 0 too."""

PriorConfig = Annotated[SerializeAsAny[PriorBlock], BeforeValidator(PRIORS.validate), PRIORS]
"""A block under `priors:`: its method, `start`, and the settings of that method."""


class FixedPointSettings(Settings):
    """Settings of the fixed-point iteration of Proposition 1, without λ."""

    alpha: PositiveFloat = 10.0
    """α of Eq. 3"""
    scale: Literal["pairwise", "average"] = "pairwise"
    """π of Eq. 3: each pair's own KLD (Eq. 9), or the mean over all pairs (Eq. 10)"""
    update: Literal["released", "exact"] = "released"
    """`exact`: Eqs. 5-7 as they follow from Eq. 4; `released`: what the authors' code computes, A′ = ΣAΣ in the place
    of A, class variances about the class mean, and the two slips below (diagonal covariances only)"""
    fit_mean: bool = True
    """what is not fitted keeps its initial value"""
    fit_variance: bool = True
    """what is not fitted keeps its initial value"""
    unbiased_variance: bool = added_setting(True)
    """class variances of the latents have the divisor N − 1; false: N, as Eq. 7 has it"""
    isotropic_variance: bool = added_setting(False)
    """Σ_i = v_i I, one variance a class; `start: isotropic` gives initial Gaussians, and λ = 0, of the same kind"""
    isotropic_mean_update: bool = True
    """released update: the mean update averages Σ_i and Σ_j⁻¹ over the dimensions"""
    pooled_mean_gaps: bool = True
    """released update: A takes Σ_i Δ_ij² in the place of Δ_ij²"""
    tolerance: NonNegativeFloat = 0.1
    """the iteration ends when max_i ‖δμ_i‖₂ and max_i ‖δv_i‖₂ (Frobenius for matrices) are at most this"""
    max_iterations: PositiveInt = 1000
    """after these the iteration ends unconverged"""


class RepeatedFixedPointSettings(FixedPointSettings):
    """Settings of a fixed-point iteration that is run again while the flow is trained, without λ.

    Before an epoch the iteration starts from the current Gaussians, on the statistics of all training latents.
    """

    every_epochs: PositiveInt = 1
    """epochs from one fit to the next, the first after `fit_after_epochs`"""


class GradientDescentSettings(Settings):
    """Settings of Gaussians learned by gradient descent along with the flow (NFGD), without λ.

    Every epoch: statistics of all training latents, then one Adam step. Every step: Adam on the likelihood of the
    batch, as Gaussian-mixture flows do. Variances are a·sigmoid(b·s) + c, and s is what is learned.
    """

    every: Literal["epoch", "step"] = "epoch"
    """a step an epoch, on all training latents; or at every step of the flow, on its batch"""
    objective: Literal["equation_4", "released"] = "equation_4"
    """NLL + λ L_KLD (Eq. 4), or the released code's range-normalised NLL − w·KLD (every epoch only)"""
    alpha: PositiveFloat = 10.0
    """α of Eq. 3"""
    scale: Literal["pairwise", "average"] = "pairwise"
    """π of Eq. 3: pairwise (Eq. 9) or average (Eq. 10)"""
    fit_mean: bool = True
    """what is not fitted keeps its initial value"""
    fit_variance: bool = True
    """what is not fitted keeps its initial value"""
    learning_rate: PositiveFloat = 0.1
    """η₀ of Adam's step size η(u) = η₀ + (η₁ − η₀) u^power, u from 0 (the first step) to 1 (the end of training)"""
    final_learning_rate: PositiveFloat = 0.001
    """η₁"""
    power: PositiveFloat = 1.0
    """1: linear; above: sublinear, the step size changes slowly at first; below: superlinear"""
    variance_range: PositiveFloat = 1.0
    """a"""
    variance_slope: PositiveFloat = 1.0
    """b"""
    smallest_variance: PositiveFloat = 0.25
    """c"""

    @model_validator(mode="after")
    def _something_is_learned(self) -> GradientDescentSettings:
        if self.objective == "released" and self.every == "step":
            raise ValueError("objective: released is of all training latents, expected every = epoch, received step")
        if not (self.fit_mean or self.fit_variance):
            raise ValueError("fit_mean, fit_variance: expected at least one to be learned, received neither")
        return self


class _Weighted(Settings):
    """Settings of a method together with λ; what does not fit is refused in one line (ValueError)."""

    weight: NonNegativeFloat
    """λ of Eq. 4"""

    def __init__(self, weight: float, **settings: Any) -> None:
        values: dict[str, Any] = {"weight": weight, **settings}
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ValueError(explain(error)) from None


class FixedPointConfig(_Weighted, FixedPointSettings):
    """λ and the settings of the fixed-point iteration: `FixedPointConfig(weight=1e4, update="exact")`."""


class RepeatedFixedPointConfig(FixedPointConfig, RepeatedFixedPointSettings):
    """λ and the settings of repeated fits: `RepeatedFixedPointConfig(weight=1e4, every_epochs=10)`."""


class GradientDescentConfig(_Weighted, GradientDescentSettings):
    """λ and the settings of the gradient descent: `GradientDescentConfig(weight=1e4, power=2)`.

    The released objective has weights of its own, and step sizes of its own as well: 0.1 → 0.1 → 0.01 → 0.001 at epochs
    0, 10, 11 and 100, linearly or geometrically between them.
    """

    def step_size(self, progress: float) -> float:
        """η(u) at the share u of the training that is done."""
        return self.learning_rate + (self.final_learning_rate - self.learning_rate) * progress**self.power


PRIORS.register(
    "fixed_point",
    FixedPointSettings,
    "nfpi.priors.fixed_point:fit_prior",
    uses_weight=True,
    learned=False,
    keeps_initial_at_zero=True,
)
PRIORS.register(
    "repeated_fixed_point",
    RepeatedFixedPointSettings,
    uses_weight=True,
    learned=True,
    keeps_initial_at_zero=True,
)
PRIORS.register("gradient_descent", GradientDescentSettings, uses_weight=True, learned=True)

LearnedConfig = GradientDescentConfig | RepeatedFixedPointConfig
_LEARNED: dict[str, type[LearnedConfig]] = {
    "gradient_descent": GradientDescentConfig,
    "repeated_fixed_point": RepeatedFixedPointConfig,
}


def learned_config(method: str, **values: Any) -> LearnedConfig:
    """λ (`weight`) and the settings of a method that learns the Gaussians along with the flow.

    Raises:
        KeyError: the method is none of these.
        ValueError: a setting does not fit.
    """
    return _LEARNED[method](**values)


def method_of(config: LearnedConfig) -> str:
    """The method that has this configuration."""
    return next(method for method, kind in _LEARNED.items() if type(config) is kind)
