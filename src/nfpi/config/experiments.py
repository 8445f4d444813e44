"""Which runs stand in a table, and what the figures show."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from nfpi.config.base import Augmentation, Name, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Settings

Weights = Annotated[list[NonNegativeFloat], Field(min_length=1)]


class Experiment(Settings):
    """One data set, a prior for a list of λ, and a classifier: a row of a table for each λ, or for the best."""

    label: str = ""
    """name of the row; empty: the prior's"""
    dataset: Name
    prior: Name | None = "fpi"
    """none: no flow, a classifier of real images alone"""
    lambdas: list[NonNegativeFloat] = []
    """weights λ of the repulsion (Eq. 4); 0 keeps the initial Gaussians"""
    classifier: Name | None = "resnet18"
    """what learns from the images; none: NF-Acc only"""
    augmentation: Augmentation = "standard"
    """of a classifier of real images: none, its standard ones, latent ones by the flow (nfa), or both"""

    @property
    def uses_nfa(self) -> bool:
        """Whether the classifier sees latent augmentations."""
        return "nfa" in self.augmentation

    @model_validator(mode="after")
    def _one_kind_of_run(self) -> Experiment:
        if self.prior is None and (self.lambdas or self.uses_nfa or self.classifier is None):
            raise ValueError("without a prior an experiment has a classifier, no lambdas, and no nfa")
        if self.prior is not None and not self.lambdas:
            raise ValueError("lambdas: expected at least one, received none")
        return self


class Table(Settings):
    """A table of the paper as a list of experiments."""

    title: str = ""
    best_only: bool = False
    """one row an experiment, at the λ that is best on the validation split; else a row for each λ"""
    experiments: Annotated[list[Experiment], Field(min_length=1)]
    literature: list[str] = []
    """rows of cited work; their numbers stand in workflow/reference/paper.csv under these names, where known"""


class EmbeddingFigure(Settings):
    """Figure 1: t-SNE of images, and samples of class Gaussians there before and after the fixed point."""

    dataset: Name
    images: PositiveInt = 5000
    """training images that are embedded"""
    perplexity: PositiveFloat = 30.0
    seed: NonNegativeInt = 0
    lambdas: Annotated[list[PositiveFloat], Field(min_length=2, max_length=2)] = [1e3, 1e5]
    """small and large λ of the released update with variances"""
    lambdas_full: Annotated[list[PositiveFloat], Field(min_length=2, max_length=2)] = [10.0, 30.0]
    """small and large λ of the exact update with full covariances"""
    samples_per_class: PositiveInt = 200


class AugmentationFigure(Settings):
    """Figure 2: images beside latent-augmented variants."""

    dataset: Name
    prior: Name = "fpi"
    weight: NonNegativeFloat
    """λ"""
    classes: Annotated[list[str], Field(min_length=1)]
    """names or indices of classes"""
    images_per_class: PositiveInt = 1
    variants: PositiveInt = 3


class SamplesFigure(Settings):
    """Class-conditional samples at several temperatures."""

    dataset: Name
    prior: Name = "fpi"
    weight: NonNegativeFloat
    classes: PositiveInt = 10
    """the first so many"""
    temperatures: Annotated[list[PositiveFloat], Field(min_length=1)] = [0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2]


class ResidualsFigure(Settings):
    """Residual of the fixed-point iteration against the iteration."""

    dataset: Name
    prior: Name = "fpi"
    lambdas: Annotated[list[PositiveFloat], Field(min_length=1)]


class ConvergenceFigure(Settings):
    """Where the fixed-point iteration converges: λ × update × scale × what is fitted, on the latents of a start."""

    dataset: Name
    alpha: PositiveFloat = 10.0
    lambdas: Weights = [1e2, 3e2, 1e3, 3e3, 1e4, 3e4, 1e5, 3e5, 1e6, 3e6]


class Figures(Settings):
    """What the figures show; a figure without settings is not made."""

    figure1: EmbeddingFigure | None = None
    figure2: AugmentationFigure | None = None
    samples: SamplesFigure | None = None
    residuals: ResidualsFigure | None = None
    convergence_map: ConvergenceFigure | None = None
