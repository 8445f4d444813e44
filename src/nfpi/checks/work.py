"""The trainings of a preset's runs, and their numbers of steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from nfpi.config.base import ConfigError
from nfpi.config.datasets import SOURCES, DatasetBlock
from nfpi.config.settings import Config
from nfpi.results.tables.rows import list_tabled_runs
from nfpi.runs import Run


@dataclass(frozen=True)
class Images:
    """Sizes of the training images of a data set.

    Attributes:
        train: number of images.
        classes: K.
        shape: (C, H, W) of the flow's input.
    """

    train: int
    classes: int
    shape: tuple[int, int, int]

    @classmethod
    def of(cls, config: DatasetBlock) -> Images | None:
        """Return the sizes of a data set, as known from its source; None: only its prepared images tell them."""
        traits = SOURCES[config.source].traits
        if "images" not in traits or config.vae is not None:
            return None
        classes = config.num_classes or traits["classes"]
        train = round(traits["images"] * classes / traits["classes"])
        if not traits.get("test_split", True):
            train -= round(train * config.test_fraction)
        if not config.refit:
            train -= round(train * config.validation_fraction)
        if config.train_per_class is not None:
            train = min(train, config.train_per_class * classes)
        return cls(train, classes, (traits["channels"], traits["size"], traits["size"]))


@dataclass(frozen=True)
class Work:
    """Equal training steps of a run.

    Attributes:
        stage: train_flow or train_classifier.
        subject: name of the flow or the classifier in the config.
        dataset: name of the data set in the config.
        shape: (C, H, W) of one image.
        classes: number of classes, K.
        batch: number of images per batch.
        steps: number of steps.
        trainings: number of equal trainings (jobs) among which the steps are divided.
    """

    stage: str
    subject: str
    dataset: str
    shape: tuple[int, int, int]
    classes: int
    batch: int
    steps: int
    trainings: int = 1

    @property
    def label(self) -> str:
        """Stage and model."""
        return f"{self.stage}: {self.subject}"


def list_work(config: Config, sizes: Mapping[str, Images]) -> list[Work]:
    """Return the trainings of all tables of a preset on the data sets of known sizes; shared ones are counted once.

    Imported flows and classifiers without training are left out.

    Args:
        config: settings of the preset.
        sizes: sizes of data sets by their names.
    """
    runs = [run for run in list_tabled_runs(config) if run.dataset in sizes]
    flows = dict.fromkeys(run.of_flow.of_training for run in runs if run.flow is not None and not run.is_imported)
    tested = [run.without_flow if run.measures_samples else run for run in runs if run.classifier is not None]
    fine_tuned = [run for other in tested if (run := config.fine_tuned_from(other)) is not None]
    work = [_make_flow_work(config, run, sizes[run.dataset]) for run in flows]
    work += [_make_classifier_work(config, run, sizes[run.dataset]) for run in dict.fromkeys(tested + fine_tuned)]
    return [one for one in work if one.steps]


def _make_flow_work(config: Config, run: Run, images: Images) -> Work:
    """Return the steps of a flow after those of its initial state."""
    assert run.flow is not None
    training = config.resolve_training(run.dataset, run.flow)
    steps = (training.epochs - training.fit_after_epochs) * ceil(images.train / training.batch_size)
    return Work("train_flow", run.flow, run.dataset, images.shape, images.classes, training.batch_size, steps)


def _make_classifier_work(config: Config, run: Run, images: Images) -> Work:
    """Return the steps of a classifier, which is trained once for each temperature of generated images."""
    assert run.classifier is not None
    own = config.for_dataset(run.dataset)
    settings = own.classifiers[run.classifier]
    trainings, count = 1, images.train
    if settings.train_on != "real":
        # `augmentation` is None exactly for classifiers trained on generated images
        trainings = len(own.generation.temperatures) if run.augmentation is None else 1
        count = own.generation.per_class * images.classes
        count += images.train if settings.train_on == "both" and run.augmentation is None else 0
    steps = trainings * settings.epochs * ceil(settings.repeats * count / settings.batch_size)
    # classifiers of an autoencoder's data sets read the image files
    channels, side = (images.shape[0], images.shape[1]) if config.datasets[run.dataset].vae is None else (3, None)
    side = settings.image_size or side
    if side is None:
        key = f"classifiers.{run.classifier}.image_size"
        raise ConfigError(f"{key}: expected a size for {run.dataset}, whose image files differ in size, received none")
    shape = (channels, side, side)
    common = (run.classifier, run.dataset, shape, images.classes, settings.batch_size)
    return Work("train_classifier", *common, steps, trainings)
