"""The stage that estimates the Gaussians of a trained flow again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nfpi.config.base import PositiveInt
from nfpi.config.experiments import Refit
from nfpi.runs import FLOW_RUN, MODEL_FILES, OWN, Run, split_refitted
from nfpi.runtime.divergence import Diverged
from nfpi.stages.base import Stage
from nfpi.stages.import_model import ImportModel
from nfpi.stages.needs import Job, Need, Needs
from nfpi.stages.planned import Planned, Wildcards
from nfpi.stages.prepare_data import list_meta_files, need_splits
from nfpi.stages.train_flow import TrainFlow


class RefitPrior(Stage):
    """Estimate the Gaussians of a trained flow again.

    Writes a model with the same flow, and Gaussians estimated from the latents of the training images, without
    augmentation.
    """

    command = "refit-prior"
    places = (FLOW_RUN,)
    outputs = {name: TrainFlow.outputs[name] for name in MODEL_FILES}
    product = "refitted model"
    label = TrainFlow.label
    inputs = {"data": list_meta_files("train"), "model": tuple(MODEL_FILES.values())}
    blocks = {"batch_size": "evaluation.batch_size"}
    uses = ("flow", "prior")

    data: Path
    """folder of the splits"""
    model: Path
    """folder of the model"""
    refit: Refit = "moments"
    """moments: means and variances of each class; prior: by the prior's own method with its λ"""
    batch_size: PositiveInt = 1000

    @classmethod
    def select_options(cls, planned: Planned, wildcards: Wildcards) -> dict[str, Any]:
        """Return the options of a job except paths."""
        return super().select_options(planned, {**wildcards, "refit": split_refitted(wildcards["prior"])[1] or ""})

    @classmethod
    def makes(cls, planned: Planned, wildcards: Wildcards) -> bool:
        """Return whether the run's Gaussians are estimated again."""
        return split_refitted(wildcards["prior"])[1] is not None

    def list_needs(self, planned: Planned, wildcards: Wildcards) -> Needs:
        """Return the splits, and the model before its Gaussians are estimated again."""
        return {
            "data": [need_splits(planned, wildcards["dataset"], wildcards["seed"])],
            "model": [need_model(Run.from_wildcards(wildcards).of_training.wildcards)],
        }

    def run(self) -> None:
        """Encode the training images, and write the model with the Gaussians of their latents."""
        from nfpi.data.store import read_image_set
        from nfpi.evaluation import collect_statistics
        from nfpi.model import ClassConditionalFlow
        from nfpi.runtime.device import make_device

        model, device = ClassConditionalFlow.read(self.model), make_device().device
        train = read_image_set(self.data / "train")
        model.require_classes(train.classes, self.data)
        statistics = collect_statistics(
            model.flow.to(device),
            train,
            batch_size=self.batch_size,
            seed=model.seed,
            domain=model.domain,
            device=device,
            covariance=model.prior.is_full,
        )
        model.flow.cpu()
        try:
            refitted = model.refit_to(statistics, self.refit)
        except Diverged as fault:
            fault.context = {"seed": model.seed, "prior": model.config["prior"]["settings"]}
            raise
        refitted.write(self.get_path("config").parent)


def need_model(wildcards: Wildcards) -> Need:
    """Return what a job reads that reads the model of a run: trained, imported, or with Gaussians estimated again."""
    prior, refit = split_refitted(wildcards["prior"])
    stage = RefitPrior if refit is not None else ImportModel if prior == OWN else TrainFlow
    return Need(Job.of(stage, wildcards), "model")
