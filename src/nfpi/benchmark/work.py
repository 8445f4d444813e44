"""The work of a preset's runs: numbers of batches by stage and kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil

from nfpi.config import PRIORS, SOURCES, Config
from nfpi.config.datasets import DatasetBlock
from nfpi.results.tables.rows import list_table_rows
from nfpi.runs import Run, get_variants_folder

IMAGENET = {"images": 1_281_167, "classes": 1000, "size": 256, "channels": 3}
"""Traits assumed where a source declares none: those of `imagefolder` in preset `paper`."""
_TEST_IMAGES = {"imagefolder": 50_000}
LATENT_CHANNELS, REDUCTION = 4, 8
"""Latent channels of Stable Diffusion's autoencoder, and its reduction of the side of an image."""


@dataclass(frozen=True)
class Images:
    """Sizes of a data set: images per split, classes and shapes.

    Attributes:
        train, validation, test: number of images.
        classes: K.
        shape: (C, H, W) of the flow's input.
        pixels: (C, H, W) of the images themselves.
    """

    train: int
    validation: int
    test: int
    classes: int
    shape: tuple[int, int, int]
    pixels: tuple[int, int, int]

    @classmethod
    def of(cls, config: DatasetBlock) -> Images:
        """Return the sizes of a data set of the config, as known from its source."""
        traits = SOURCES[config.source].traits
        known = {**IMAGENET, **traits}
        size, channels = traits.get("size") or config.image_size or IMAGENET["size"], known["channels"]
        pixels = (channels, size, size)
        side = size // REDUCTION
        shape = pixels if config.vae is None else (LATENT_CHANNELS, side, side)
        images, test = known["images"], _TEST_IMAGES.get(config.source, 10_000)
        if not known.get("test_split", True):
            test = round(images * config.test_fraction)
            images -= test
        if config.test_per_class is not None:
            test = min(test, config.test_per_class * known["classes"])
        validation = 0 if config.refit else round(images * config.validation_fraction)
        train = images - validation
        if config.train_per_class is not None:
            train = min(train, config.train_per_class * known["classes"])
        return cls(train, validation, test, known["classes"], shape, pixels)


def get_pixel_shape(config: DatasetBlock, shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return (C, H, W) of the images of a data set from that of a flow's input, which may be latents of them."""
    if config.vae is None:
        return shape
    height, width = (config.image_size or REDUCTION * side for side in shape[1:])
    return 3, height, width


@dataclass(frozen=True)
class Work:
    """A number of equal batches.

    Attributes:
        stage: name of the stage.
        kind: `flow_step`, `flow_forward`, `flow_inverse`, `classifier_step`, `classifier_forward`, `vae_encode` or
            `vae_decode`.
        subject: name of the flow or the classifier in the config; empty for the autoencoder.
        shape: (C, H, W) of one image.
        classes: number of classes, K.
        batch: number of images per batch.
        batches: number of batches, rounded up.
        dataset: name of the data set in the config.
        trainings: number of equal trainings (jobs) among which the batches are divided.
    """

    stage: str
    kind: str
    subject: str
    shape: tuple[int, int, int]
    classes: int
    batch: int
    batches: int
    dataset: str
    trainings: int = 1


def list_work(config: Config, prepared: Mapping[str, Images] | None = None) -> list[Work]:
    """Return the work of all tables of a preset; shared work is counted once, work without batches is left out.

    Args:
        config: settings of the preset.
        prepared: sizes of the data sets that are prepared; those of others are as known from their sources.
    """
    sizes = {name: Images.of(block) for name, block in config.datasets.items()} | dict(prepared or {})
    rows = [row for table in config.tables for row in list_table_rows(config, table)]
    flows = dict.fromkeys(run.of_flow for row in rows for run in row.runs if run.flow is not None)
    found = [work for run in flows for work in _list_flow_work(config, run, sizes[run.dataset])]
    found += [
        work
        for start in sorted({_identify_start(config, run) for run in flows})
        for work in _list_start_work(config, *start, sizes[start[0]])
    ]
    classifiers = dict.fromkeys(run for row in rows for run in row.classifier_runs)
    starts = [start for run in classifiers if (start := config.fine_tuned_from(run)) is not None]
    untested = set(starts) - set(classifiers)
    classifiers |= dict.fromkeys(starts)
    for run in classifiers:
        found += _list_classifier_work(config, run, sizes[run.dataset], is_tested=run not in untested)
    # one item for each folder of variants of a flow
    augmented = {
        (run.of_flow, get_variants_folder(run.augmentation))
        for run in classifiers
        if run.augmentation is not None and run.flow is not None
    }
    found += [work for run, _ in augmented for work in _list_augmentation_work(config, run, sizes[run.dataset])]
    # `augmentation` is None exactly for classifiers trained on generated images
    generated = {run.of_flow for run in classifiers if run.augmentation is None}
    found += [work for run in generated for work in _list_generation_work(config, run, sizes[run.dataset])]
    for dataset in sorted({run.dataset for run in (*flows, *classifiers)}):
        found += _list_encoding_work(config, dataset, sizes[dataset])
    return [work for work in found if work.batches]


def _identify_start(config: Config, run: Run) -> tuple[str, str, str, int]:
    """Return data set, flow, setting `start` of the prior, and seed, which identify the initial state of a flow."""
    assert run.flow is not None
    assert run.prior is not None
    return run.dataset, run.flow, config.start_of(run.prior), run.seed


def _make_flow_work(known: Images, dataset: str, flow: str, stage: str, kind: str, batch: int, images: int) -> Work:
    return Work(stage, kind, flow, known.shape, known.classes, batch, ceil(images / batch), dataset)


def _list_start_work(config: Config, dataset: str, flow: str, start: str, seed: int, known: Images) -> Iterator[Work]:
    """Return the work of initialisation, and of the epochs before the fit with their validation.

    Statistics of the latents take a pass over the training images before these epochs and, if there are any, one after
    them.
    """
    training, train = config.resolve_training(dataset, flow), known.train
    batch, epochs = training.batch_size, training.fit_after_epochs
    forward = (
        training.initialization_images
        + (2 if epochs else 1) * train
        + epochs // training.evaluate_every * known.validation
    )
    yield _make_flow_work(known, dataset, flow, "start_flow", "flow_forward", batch, forward)
    yield _make_flow_work(
        known, dataset, flow, "start_flow", "flow_step", batch, epochs * _round_up_to_batches(train, batch)
    )


def _round_up_to_batches(images: int, batch: int) -> int:
    """Return the images of an epoch, rounded up to whole batches."""
    return ceil(images / batch) * batch


def _list_flow_work(config: Config, run: Run, known: Images) -> Iterator[Work]:
    """Return the work of the epochs after the fit with their validation, and of the final evaluation."""
    assert run.flow is not None
    training = config.resolve_training(run.dataset, run.flow)
    batch, epochs = training.batch_size, training.epochs - training.fit_after_epochs
    steps = epochs * _round_up_to_batches(known.train, batch)
    yield _make_flow_work(known, run.dataset, run.flow, "train_flow", "flow_step", batch, steps)
    passes = _count_prior_passes(config, run, epochs)
    # the last epoch is always evaluated
    evaluations = ceil(training.epochs / training.evaluate_every) - training.fit_after_epochs // training.evaluate_every
    forward = evaluations * known.validation + passes * known.train
    yield _make_flow_work(known, run.dataset, run.flow, "train_flow", "flow_forward", batch, forward)
    batch = config.evaluation.batch_size
    images = known.validation + known.test
    yield _make_flow_work(known, run.dataset, run.flow, "evaluate", "flow_forward", batch, images)


def _count_prior_passes(config: Config, run: Run, epochs: int) -> int:
    """Count the passes over all training images that refit a prior while the flow is trained."""
    if run.prior not in config.priors:
        return 0
    settings = PRIORS.extract_settings(config.priors[run.prior])
    every_epochs: int | None = getattr(settings, "every_epochs", None)
    if every_epochs is not None:
        return ceil(epochs / every_epochs)
    return epochs if getattr(settings, "every", None) == "epoch" else 0


def _list_generation_work(config: Config, run: Run, known: Images) -> Iterator[Work]:
    """Return the work of generating images at every temperature."""
    assert run.flow is not None
    settings = config.for_dataset(run.dataset).generation
    images = len(settings.temperatures) * settings.per_class * known.classes
    yield _make_flow_work(known, run.dataset, run.flow, "generate", "flow_inverse", settings.batch_size, images)


def _list_augmentation_work(config: Config, run: Run, known: Images) -> Iterator[Work]:
    """Return the work of encoding all training images and decoding their variants."""
    assert run.flow is not None
    settings, train = config.for_dataset(run.dataset).nfa, known.train
    # a batch has images of one class, so the last one of a class is smaller (ImageNet: 500, 500, rest); ignored here
    yield _make_flow_work(known, run.dataset, run.flow, "augment", "flow_forward", settings.batch_size, train)
    images = settings.variants * train
    yield _make_flow_work(known, run.dataset, run.flow, "augment", "flow_inverse", settings.batch_size, images)


def _list_classifier_work(config: Config, run: Run, known: Images, *, is_tested: bool) -> Iterator[Work]:
    """Return the work of training (once per temperature of generated images), validation and, if `is_tested`, test."""
    assert run.classifier is not None
    own = config.for_dataset(run.dataset)
    settings = own.classifiers[run.classifier]
    size = settings.image_size or known.pixels[1]
    shape = (known.pixels[0], size, size)
    times, images = 1, known.train
    if settings.train_on != "real":
        times, images = len(own.generation.temperatures), own.generation.per_class * known.classes
        images += known.train if settings.train_on == "both" else 0
    batch = settings.batch_size
    steps = times * settings.epochs * ceil(settings.repeats * images / batch)
    common = (run.classifier, shape, known.classes, batch)
    yield Work("train_classifier", "classifier_step", *common, steps, run.dataset, times)
    scored = ceil((times * known.validation + (known.test if is_tested else 0)) / batch)
    yield Work("train_classifier", "classifier_forward", *common, scored, run.dataset)
    if run.augmentation is not None and run.flow is not None and config.datasets[run.dataset].vae is not None:
        decoded = ceil(settings.epochs * settings.nfa_probability * settings.repeats * images)
        batches = ceil(decoded / config.datasets[run.dataset].encode_batch_size)
        yield _make_vae_work(config, run.dataset, known, "train_classifier", "vae_decode", batches)


def _list_encoding_work(config: Config, dataset: str, known: Images) -> Iterator[Work]:
    """Return the work of encoding all images by the autoencoder."""
    if config.datasets[dataset].vae is not None:
        batch = config.datasets[dataset].encode_batch_size
        batches = ceil((known.train + known.validation + known.test) / batch)
        yield _make_vae_work(config, dataset, known, "encode_data", "vae_encode", batches)


def _make_vae_work(config: Config, dataset: str, known: Images, stage: str, kind: str, batches: int) -> Work:
    batch = config.datasets[dataset].encode_batch_size
    shape = known.pixels if kind == "vae_encode" else known.shape
    return Work(stage, kind, "", shape, known.classes, batch, batches, dataset)
