"""The work of a preset's runs: numbers of equal batches by stage and kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil

from nfpi.config.datasets import SOURCES, DataError, DatasetBlock
from nfpi.config.priors import PRIORS
from nfpi.config.settings import Config
from nfpi.results.tables.rows import list_tabled_runs
from nfpi.runs import COMMON_SPLITS, Run, get_variants_folder

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
        classes = config.num_classes or known["classes"]
        share = classes / known["classes"]
        images, test = round(share * known["images"]), round(share * _TEST_IMAGES.get(config.source, 10_000))
        if not known.get("test_split", True):
            test = round(images * config.test_fraction)
            images -= test
        if config.test_per_class is not None:
            test = min(test, config.test_per_class * classes)
        validation = 0 if config.refit else round(images * config.validation_fraction)
        train = images - validation
        if config.train_per_class is not None:
            train = min(train, config.train_per_class * classes)
        return cls(train, validation, test, classes, shape, pixels)


@dataclass(frozen=True)
class Work:
    """A number of equal batches.

    Attributes:
        stage: name of the stage.
        kind: `flow_step`, `flow_forward`, `flow_inverse`, `classifier_step`, `classifier_forward`, `vae_encode` or
            `vae_decode`.
        subject: name of the flow or the classifier in the config; empty for the autoencoder.
        dataset: name of the data set in the config.
        shape: (C, H, W) of one image.
        classes: number of classes, K.
        batch: number of images per batch.
        batches: number of batches, rounded up.
        trainings: number of equal trainings (jobs) among which the batches are divided.
    """

    stage: str
    kind: str
    subject: str
    dataset: str
    shape: tuple[int, int, int]
    classes: int
    batch: int
    batches: int
    trainings: int = 1

    @property
    def is_step(self) -> bool:
        """Whether the batches are training steps."""
        return self.kind.endswith("_step")

    @property
    def label(self) -> str:
        """Stage and, where a stage has several models, the model."""
        if self.kind.startswith("vae"):
            return f"{self.stage}: autoencoder"
        return f"{self.stage}: {self.subject}" if self.stage in ("train_flow", "train_classifier") else self.stage


def count_images(config: Config, dataset: str) -> Images | None:
    """Return the sizes of a data set, for a folder of images by counting its files; None: they are not known yet."""
    block = config.datasets[dataset]
    if "images" in SOURCES[block.source].traits:
        return Images.of(block)
    if block.source != "imagefolder" or block.folder is None or not block.folder.is_dir() or block.shape is None:
        return None
    from nfpi.data.prepare import assign_splits, choose_classes
    from nfpi.data.sources.imagefolder import list_image_folder

    try:
        files = list_image_folder(block.folder)
        classes, new_labels = choose_classes(block.only_classes or files.classes, files.classes)
        labels = {split: new_labels[some][new_labels[some] >= 0] for split, some in files.labels.items()}
        assigned = assign_splits(dataset, config.get_dataset(dataset, COMMON_SPLITS), labels, classes)
    except DataError:
        return None
    shape = (block.shape[2], *block.shape[:2])
    counts = {split: len(indices) for split, (_, indices) in assigned.items()}
    return Images(**counts, classes=len(classes), shape=shape, pixels=shape)


def describe_batch(config: Config, work: Work) -> tuple[object, ...]:
    """Return everything that the operations of a batch depend on: equal batches of several data sets are equal here.

    The number of classes is not part of a flow's batch, as only the Gaussian of each image's own class is computed.
    """
    settings, classes = "", 0
    if work.kind.startswith("classifier"):
        classes = work.classes
        settings = config.for_dataset(work.dataset).classifiers[work.subject].model_dump_json(exclude={"epochs"})
    elif work.kind.startswith("flow"):
        training = config.resolve_training(work.dataset, work.subject)
        settings = config.for_dataset(work.dataset).flows[work.subject].model_dump_json(exclude={"training"})
        settings += training.model_dump_json(include={"optimizer", "gradient_clip", "precision", "compile"})
    return work.kind, work.subject, work.shape, classes, work.batch, settings


def list_work(config: Config, prepared: Mapping[str, Images] | None = None) -> list[Work]:
    """Return the work of all tables of a preset; shared work is counted once, work without batches is left out.

    The flows of trained models are left out, as their sizes are known only when they are imported.

    Args:
        config: settings of the preset.
        prepared: sizes of the data sets that are prepared; those of others are as known from their sources.
    """
    sizes = {name: Images.of(block) for name, block in config.datasets.items()} | dict(prepared or {})
    tabled = list_tabled_runs(config)
    flows = dict.fromkeys(run.of_flow for run in tabled if run.flow is not None and not run.is_imported)
    starts = {(run.dataset, run.flow, config.start_of(run.prior or ""), run.seed): run for run in flows}
    measured = [run for run in tabled if run.measures_samples]
    classifiers = dict.fromkeys(run for run in tabled if run.classifier is not None and run not in measured)
    classifiers |= dict.fromkeys(run.without_flow for run in measured)
    fine_tuned = [run for tuned in classifiers if (run := config.fine_tuned_from(tuned)) is not None]
    untested = set(fine_tuned) - set(classifiers)
    classifiers |= dict.fromkeys(fine_tuned)
    # `augmentation` is None exactly for classifiers trained on generated images
    generated = {run.of_flow for run in classifiers if run.augmentation is None and not run.is_imported}
    augmented = {
        (run.of_flow, get_variants_folder(run.augmentation)): run.of_flow
        for run in classifiers
        if run.augmentation is not None and run.flow is not None and not run.is_imported
    }
    trained = dict.fromkeys(run.of_training for run in flows)
    found = [work for run in trained for work in _list_training_work(config, run, sizes[run.dataset])]
    found += [_make_evaluation_work(config, run, sizes[run.dataset]) for run in flows]
    found += [work for run in starts.values() for work in _list_start_work(config, run, sizes[run.dataset])]
    found += [work for run in generated for work in _list_generation_work(config, run, sizes[run.dataset])]
    found += [work for run in augmented.values() for work in _list_augmentation_work(config, run, sizes[run.dataset])]
    for run in classifiers:
        found += _list_classifier_work(config, run, sizes[run.dataset], is_tested=run not in untested)
    found += [_make_measuring_work(config, run, sizes[run.dataset]) for run in measured]
    for dataset in sorted({run.dataset for run in (*flows, *classifiers)}):
        known = sizes[dataset]
        images = known.train + known.validation + known.test
        found += _list_vae_work(config, dataset, known, "encode_data", "vae_encode", images)
    return [work for work in found if work.batches]


def _make_flow_work(run: Run, known: Images, stage: str, kind: str, batch: int, images: int) -> Work:
    assert run.flow is not None
    return Work(stage, kind, run.flow, run.dataset, known.shape, known.classes, batch, ceil(images / batch))


def _list_start_work(config: Config, run: Run, known: Images) -> Iterator[Work]:
    """Return the work of initialisation, and of the epochs before the fit with their validation.

    Statistics of the latents take a pass over the training images before these epochs and, if there are any, one after
    them.
    """
    training = config.resolve_training(run.dataset, run.flow or "")
    batch, epochs = training.batch_size, training.fit_after_epochs
    passes = training.initialization_images + (2 if epochs else 1) * known.train
    forward = passes + epochs // training.evaluate_every * known.validation
    yield _make_flow_work(run, known, "start_flow", "flow_forward", batch, forward)
    yield _make_flow_work(run, known, "start_flow", "flow_step", batch, epochs * ceil(known.train / batch) * batch)


def _list_training_work(config: Config, run: Run, known: Images) -> Iterator[Work]:
    """Return the work of the epochs after the fit with their validation."""
    training = config.resolve_training(run.dataset, run.flow or "")
    batch, epochs = training.batch_size, training.epochs - training.fit_after_epochs
    yield _make_flow_work(run, known, "train_flow", "flow_step", batch, epochs * ceil(known.train / batch) * batch)
    # the last epoch is always evaluated
    evaluations = ceil(training.epochs / training.evaluate_every) - training.fit_after_epochs // training.evaluate_every
    forward = evaluations * known.validation + _count_prior_passes(config, run, epochs) * known.train
    yield _make_flow_work(run, known, "train_flow", "flow_forward", batch, forward)


def _make_evaluation_work(config: Config, run: Run, known: Images) -> Work:
    """Return the work of evaluating a flow, with that of estimating its Gaussians again before, if they are.

    The test images are encoded three times: for the scores, for the statistics, and under the class moments.
    """
    passes_of_training = 1 if run == run.of_training else 2
    images = passes_of_training * known.train + known.validation + 3 * known.test
    return _make_flow_work(run, known, "evaluate", "flow_forward", config.evaluation.batch_size, images)


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
    settings = config.for_dataset(run.dataset).generation
    images = len(settings.temperatures) * settings.per_class * known.classes
    yield _make_flow_work(run, known, "generate", "flow_inverse", settings.batch_size, images)


def _list_augmentation_work(config: Config, run: Run, known: Images) -> Iterator[Work]:
    """Return the work of encoding all training images and decoding their variants."""
    settings = config.for_dataset(run.dataset).nfa
    # a batch has images of one class, so the last one of a class is smaller (ImageNet: 500, 500, rest); ignored here
    yield _make_flow_work(run, known, "augment", "flow_forward", settings.batch_size, known.train)
    yield _make_flow_work(run, known, "augment", "flow_inverse", settings.batch_size, settings.variants * known.train)


def _list_classifier_work(config: Config, run: Run, known: Images, *, is_tested: bool) -> Iterator[Work]:
    """Return the work of training (once per temperature of generated images), validation and, if `is_tested`, test."""
    assert run.classifier is not None
    own = config.for_dataset(run.dataset)
    settings = own.classifiers[run.classifier]
    size = settings.image_size or known.pixels[1]
    times, images = 1, known.train
    if settings.train_on != "real":
        times = len(own.generation.temperatures) if run.augmentation is None else 1
        images = own.generation.per_class * known.classes
        images += known.train if settings.train_on == "both" and run.augmentation is None else 0
    batch = settings.batch_size
    common = (run.classifier, run.dataset, (known.pixels[0], size, size), known.classes, batch)
    steps = times * settings.epochs * ceil(settings.repeats * images / batch)
    yield Work("train_classifier", "classifier_step", *common, steps, times)
    scored = times * known.validation + (known.test if is_tested else 0)
    yield Work("train_classifier", "classifier_forward", *common, ceil(scored / batch))
    if run.augmentation is not None and run.flow is not None:
        decoded = ceil(settings.epochs * settings.nfa_probability * settings.repeats * images)
        yield from _list_vae_work(config, run.dataset, known, "train_classifier", "vae_decode", decoded)


def _make_measuring_work(config: Config, run: Run, known: Images) -> Work:
    """Return the work of the classifier that measures generated images: all, and for features some and as many real."""
    own = config.for_dataset(run.dataset)
    settings, images = own.classifiers[run.classifier or ""], own.generation.per_class * known.classes
    size, batch = settings.image_size or known.pixels[1], settings.batch_size
    batches = ceil((images + 2 * min(images, known.train, own.quality.images)) / batch)
    common = (run.classifier or "", run.dataset, (known.pixels[0], size, size), known.classes, batch)
    return Work("measure_samples", "classifier_forward", *common, batches)


def _list_vae_work(config: Config, dataset: str, known: Images, stage: str, kind: str, images: int) -> Iterator[Work]:
    """Return the work of the autoencoder, if the data set has one."""
    block = config.datasets[dataset]
    if block.vae is not None:
        shape, batch = known.pixels if kind == "vae_encode" else known.shape, block.encode_batch_size
        yield Work(stage, kind, "", dataset, shape, known.classes, batch, ceil(images / batch))
