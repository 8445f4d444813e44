"""Stages that compute what a figure shows: a table for `figure` to draw, or, of images, the figure itself."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING

from nfpi.config.experiments import AugmentationFigure, ConvergenceFigure, EmbeddingFigure, SamplesFigure
from nfpi.config.settings import NfaConfig
from nfpi.stages.base import HeavyStage, images_of_flow, write_rows

if TYPE_CHECKING:
    from nfpi.priors.fixed_point import FixedPointDiverged

logger = logging.getLogger(__name__)


class Embed(HeavyStage):
    """Embed training images in the plane by t-SNE, and fit their classes' Gaussians there: what figure 1 shows."""

    data: Path
    """folder of the splits; images of the train split are embedded"""
    figure: EmbeddingFigure
    output: Path
    """table of points (csv)"""

    def run(self) -> None:
        """Embed, fit, sample."""
        from nfpi.analysis import embedding_table
        from nfpi.data.store import read_image_set
        from nfpi.results.records import write_csv

        table = embedding_table(read_image_set(self.data / "train"), self.figure)
        for (variant, panel), rows in table[table["outcome"].notna()].groupby(["variant", "panel"], sort=False):
            row = rows.iloc[0]
            logger.info(
                *("%s, %s: λ = %g: %s at iteration %d", variant, panel),
                *(row["lambda"], row["outcome"], row["iterations"]),
            )
        write_csv(table, self.output)


class MapConvergence(HeavyStage):
    """Try for which λ, update, scale, and choice of what is fitted the fixed-point iteration converges."""

    statistics: Path
    """statistics.safetensors of a start"""
    initial: Path
    """prior.safetensors of the same start"""
    figure: ConvergenceFigure
    output: Path
    """table, a fit a row (csv)"""

    def run(self) -> None:
        """Fit them all."""
        from tqdm import tqdm

        from nfpi.analysis import convergence_table
        from nfpi.figures.fixed_point import CONVERGENCE_COLUMNS
        from nfpi.runtime.tensors import load_prior, load_statistics

        fits = convergence_table(load_statistics(self.statistics), load_prior(self.initial)[0], self.figure)
        rows = list(tqdm(fits, desc="map convergence", unit="fit", disable=None))
        write_rows(self.output, list(CONVERGENCE_COLUMNS), rows)


class DrawSamples(HeavyStage):
    """Draw images of each class at several temperatures (png, pdf)."""

    flow: Path
    """flow.safetensors"""
    prior: Path
    """prior.safetensors beside it"""
    figure: SamplesFigure
    output: Path
    """file name without its suffix"""

    def run(self) -> None:
        """Sample and draw."""
        from nfpi.analysis import sample_grid
        from nfpi.data.errors import DataError
        from nfpi.data.domain import domain_of_flow
        from nfpi.runtime.devices import make_fabric
        from nfpi.figures.samples import samples
        from nfpi.figures.style import save_figure
        from nfpi.runtime.tensors import load_flow, load_prior

        flow, header = load_flow(self.flow)
        prior, _ = load_prior(self.prior)
        device, data = make_fabric().device, header["data"]
        expected, received = (len(data["classes"]), math.prod(flow.shape)), (prior.num_classes, prior.num_dimensions)
        if received != expected:
            raise DataError(
                f"{self.prior}: expected {expected[0]} classes in {expected[1]} dimensions, "
                f"received {received[0]} in {received[1]}"
            )
        images = sample_grid(
            flow.to(device),
            prior,
            self.figure,
            seed=header["seed"],
            data=data,
            domain=domain_of_flow(header),
            device=device,
        )
        save_figure(samples(images, self.figure.temperatures, data["classes"][: images.shape[1]]), self.output)

    def mark(self, fault: FixedPointDiverged) -> None:
        """The figure says so."""
        _draw_notice(self.output, fault)


class DrawAugmentations(HeavyStage):
    """Draw training images and latent-augmented variants of them (png, pdf): figure 2."""

    data: Path
    """folder of the splits; images of the train split are shown"""
    flow: Path
    """flow.safetensors"""
    nfa: NfaConfig = NfaConfig()
    figure: AugmentationFigure
    output: Path
    """file name without its suffix"""

    def run(self) -> None:
        """Augment and draw."""
        from nfpi.analysis import augmentation_grid
        from nfpi.data.domain import domain_of_flow
        from nfpi.runtime.devices import make_fabric
        from nfpi.figures.samples import augmentations
        from nfpi.figures.style import save_figure
        from nfpi.runtime.tensors import load_flow

        flow, header = load_flow(self.flow)
        train = images_of_flow(self.data, self.flow, header)
        device = make_fabric().device
        images, classes = augmentation_grid(
            flow.to(device),
            train,
            self.figure,
            self.nfa,
            seed=header["seed"],
            data=header["data"],
            domain=domain_of_flow(header),
            device=device,
        )
        save_figure(augmentations(images, classes), self.output)

    def mark(self, fault: FixedPointDiverged) -> None:
        """The figure says so."""
        _draw_notice(self.output, fault)


def _draw_notice(stem: Path, fault: FixedPointDiverged) -> None:
    from nfpi.figures.style import notice, save_figure

    save_figure(notice(str(fault)), stem)
