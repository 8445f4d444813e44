"""The stages that make the model of a run from another one: imported, or with Gaussians estimated again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_settings import CliPositionalArg

from nfpi.config.base import NonNegativeFloat, PositiveInt, Seed
from nfpi.config.experiments import Refit
from nfpi.config.flows import TrainedSettings
from nfpi.runs import FLOW_RUN, MODEL_FILES, OWN, Run, format_weight, split_refitted
from nfpi.runtime.divergence import Diverged
from nfpi.stages.base import Stage
from nfpi.stages.jobs import Job, Need, Needs, Planned, Wildcards
from nfpi.stages.prepare_data import list_meta_files, need_splits
from nfpi.stages.train_flow import TrainFlow

if TYPE_CHECKING:
    import numpy as np

    from nfpi.data.store import ImageSet
    from nfpi.model import ClassConditionalFlow


def list_model_files(model: Path) -> list[Path]:
    """Return the files of a model: those in its folder, or the checkpoint itself."""
    return [model / file for file in MODEL_FILES.values()] if model.is_dir() else [model]


class ImportModel(Stage):
    """Import a trained model as the model of a run.

    The model is a folder, a checkpoint of the authors' release or, with a revision, downloaded from the Hugging Face
    hub. It must fit the data set, and not have been trained on its test images.
    """

    command = "import-model"
    places = (FLOW_RUN,)
    outputs = {name: TrainFlow.outputs[name] for name in MODEL_FILES}
    product = "model"
    inputs = {"data": list_meta_files("train", "test")}
    apart = ("model",)  # it may be of another run, on other splits
    blocks = {"model": "flows.{flow}.model", "revision": "flows.{flow}.revision", "averaged": "flows.{flow}.averaged"}
    uses = ("flow",)

    model: CliPositionalArg[Path]
    """folder of the model, file of the checkpoint, or id of the model on the hub"""
    data: Path
    """folder of the splits"""
    revision: str | None = None
    """commit of the model on the hub; None: the model is on this machine"""
    averaged: bool = True
    """use the averaged (EMA) weights of a checkpoint instead of the online ones"""
    weight: NonNegativeFloat = 0.0
    """λ of the run, which must be that of the model, if the model records it"""
    seed: Seed = 0
    """seed of the run: of noise and samples"""

    @classmethod
    def select_options(cls, planned: Planned, wildcards: Wildcards) -> dict[str, Any]:
        """Return the options of a job, with the path of the model."""
        model = planned.resolve(wildcards).flows[wildcards["flow"]]
        assert isinstance(model, TrainedSettings)
        return super().select_options(planned, wildcards) | {"model": Path(model.model)}

    def list_inputs(self) -> dict[str, list[Path]]:
        """Return the descriptions of the splits, and the files of a model on this machine."""
        return super().list_inputs() | ({"model": list_model_files(self.model)} if self.revision is None else {})

    @classmethod
    def makes(cls, planned: Planned, wildcards: Wildcards) -> bool:
        """Return whether the run's flow was trained elsewhere, and its Gaussians are not estimated again."""
        flow = planned.config.for_dataset(wildcards["dataset"]).flows[wildcards["flow"]]
        return wildcards["prior"] == OWN and isinstance(flow, TrainedSettings)

    def list_needs(self, planned: Planned, wildcards: Wildcards) -> Needs:
        """Return the splits, and the files of a model on this machine."""
        needs: Needs = {"data": [need_splits(planned, wildcards["dataset"], wildcards["seed"])]}
        return needs if self.revision is not None else needs | {"model": [*list_model_files(self.model)]}

    def list_path_options(self, needs: Mapping[str, Sequence[str]]) -> list[str]:
        """Return the words of the command line that name the splits and the model."""
        return [*super().list_path_options({"data": needs["data"]}), str(self.model)]

    def run(self) -> None:
        """Read the model, compare it with the data set, and write it with the seed of the run."""
        from nfpi.data.store import read_image_set
        from nfpi.evaluation import check_shapes
        from nfpi.model.files import require_classes

        train, test = (read_image_set(self.data / split) for split in ("train", "test"))
        model = self._read_model(test)
        check_shapes(model.flow, model.prior, test)
        require_classes(test.classes, model.classes, self.data)
        recorded = model.config.get("prior", {}).get("lambda")
        if recorded not in (None, self.weight):
            raise ValueError(
                f"{self.model}: expected a model with λ = {format_weight(self.weight)}, received one with λ = "
                f"{format_weight(recorded)}: set it as `lambda` of the flow"
            )
        unseen = {} if model.digests is None else {"unseen": self._check_unseen(model.digests, train, test)}
        config = {name: value for name, value in model.config.items() if name != "unseen"}
        replace(model, config={**config, "seed": self.seed, **unseen}).write(self.get_path("config").parent)

    def _read_model(self, images: ImageSet) -> ClassConditionalFlow:
        from nfpi.model import ClassConditionalFlow
        from nfpi.model.files import describe_images
        from nfpi.model.hub import download_model

        if self.revision is not None:
            return ClassConditionalFlow.read(download_model(str(self.model), revision=self.revision))
        if self.model.is_dir():
            return ClassConditionalFlow.read(self.model)
        model = ClassConditionalFlow.from_release(self.model, images.classes, self.averaged)
        return replace(model, config={**model.config, "data": describe_images(images)})

    def _check_unseen(self, digests: np.ndarray, train: ImageSet, test: ImageSet) -> int:
        """Return the number of test images, after checking that none is a training image of the model.

        Images that the data set itself has in both splits do not count.

        Raises:
            ValueError: the model was trained on a test image.
        """
        import numpy as np

        from nfpi.data.store import digest_images

        own, others = digest_images(train.images), digest_images(test.images)
        seen = int(np.isin(others, np.setdiff1d(digests, own)).sum())
        if seen:
            raise ValueError(
                f"{self.data / 'test'}: expected images that the model was not trained on, received {seen} of its "
                f"training images ({self.model})"
            )
        return len(test)


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
        from nfpi.model.files import require_classes
        from nfpi.model.fitting import estimate_again
        from nfpi.runtime.device import make_device

        model = ClassConditionalFlow.read(self.model)
        train = read_image_set(self.data / "train")
        require_classes(train.classes, model.classes, self.data)
        statistics = collect_statistics(
            model.flow.to(make_device().device),
            train,
            batch_size=self.batch_size,
            seed=model.seed,
            domain=model.domain,
            covariance=model.prior.is_full,
        )
        model.flow.cpu()
        try:
            prior, config = estimate_again(model.config, statistics, self.refit)
        except Diverged as fault:
            fault.context = {"seed": model.seed, "prior": model.config["prior"]["settings"]}
            raise
        replace(model, prior=prior, config=config).write(self.get_path("config").parent)


def need_model(wildcards: Wildcards) -> Need:
    """Return what a job reads that reads the model of a run: trained, imported, or with Gaussians estimated again."""
    prior, refit = split_refitted(wildcards["prior"])
    stage = RefitPrior if refit is not None else ImportModel if prior == OWN else TrainFlow
    return Need(Job.of(stage, wildcards), "model")
