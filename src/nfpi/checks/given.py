"""Checks of the user's inputs: account, prepared data, weights of classifiers, and autoencoder."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch

from nfpi.benchmark.measurement import synchronize
from nfpi.checks.report import Line, format_error
from nfpi.checks.subject import Subject, release_memory
from nfpi.checks.workloads import compose_preparation
from nfpi.data.errors import DataError

_IMAGES_ON_GPU, _IMAGES_ON_CPU = 16, 2
"""Numbers of images that the autoencoder is checked with, on a GPU and on a CPU."""


def check_account(subject: Subject) -> Iterator[Line]:
    """Name the accounts that the jobs of a cluster are charged to."""
    cluster = subject.config.cluster
    if cluster is None:
        return
    kind = "jobs with GPUs" if cluster.cpu_account else "jobs"
    if cluster.account is None:
        text = f"cluster.account: not set, so {kind} are charged to your default account"
    else:
        text = f"{kind} are charged to {cluster.account}"
    if cluster.cpu_account:
        text += f", others to {cluster.cpu_account}"
    yield Line("account", "missing" if cluster.account is None else "ok", text)


def check_data(subject: Subject) -> Iterator[Line]:
    """Report which data sets are prepared."""
    for workload in {workload.dataset: workload for workload in subject.workloads}.values():
        images = workload.images
        if workload.prepared:
            yield Line(
                "data",
                "ok",
                f"{workload.dataset}: {len(images)} training images {images.shape}, {images.num_classes} classes",
            )
            continue
        dataset = subject.config.datasets[workload.dataset]
        hint = f"run `{compose_preparation(dataset)}` with this preset"
        if dataset.folder is not None and not dataset.folder.exists():
            hint = f"datasets.{workload.dataset}.folder: {dataset.folder} is not there"
        elif dataset.folder is None and dataset.source == "imagefolder":
            hint = f"datasets.{workload.dataset}.folder: not set"
        elif dataset.folder is None and dataset.source != "digits":
            hint = f"where there is internet, {hint}"
        yield Line("data", "missing", f"{workload.dataset}: checked with random images {images.shape}; {hint}")


def check_weights(subject: Subject) -> Iterator[Line]:
    """Check that the weight files of the classifiers exist."""
    from nfpi.checks.classifiers import find_used_classifiers

    settings = {}
    for (name, dataset), config in find_used_classifiers(subject.config).items():
        if config.weights is None or subject.dataset not in (None, dataset):
            continue
        is_common = config.weights == subject.config.classifiers[name].weights
        prefix = "" if is_common else f"datasets.{dataset}.overrides."
        settings[f"{prefix}classifiers.{name}.weights"] = config.weights
    for setting, file in settings.items():
        if not file.is_file():
            yield Line("weights", "missing", f"{setting}: {file} is not there")


def check_autoencoder(subject: Subject) -> Iterator[Line]:
    """Encode and decode images if a flow is trained on latents."""
    for dataset in dict.fromkeys(workload.dataset for workload in subject.workloads):
        block = subject.config.datasets[dataset]
        if block.vae is None:
            continue
        if not block.vae.is_dir():
            yield Line("autoencoder", "missing", f"datasets.{dataset}.vae: {block.vae} is not there: give its folder")
            continue
        yield _check_one_autoencoder(subject, dataset)


def _check_one_autoencoder(subject: Subject, dataset: str) -> Line:
    from nfpi.data.autoencoder import compute_latent_shape, decode, encode, load_autoencoder

    block = subject.config.datasets[dataset]
    assert block.vae is not None
    count, size = (_IMAGES_ON_GPU if subject.on_gpu else _IMAGES_ON_CPU), block.image_size or 256
    release_memory()
    try:
        autoencoder = load_autoencoder(block.vae, subject.device)
        compute_latent_shape(autoencoder, size, size)
    except DataError as error:
        return Line("autoencoder", "FAILED", format_error(error))
    images = torch.randint(256, (count, 3, size, size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    rates = []
    latents = encode(autoencoder, images)
    back = decode(autoencoder, latents)
    for action, given in ((encode, images), (decode, latents)):
        synchronize(subject.device)
        began = time.perf_counter()
        action(autoencoder, given)
        synchronize(subject.device)
        rates.append(count / (time.perf_counter() - began))
    subject.per_image["vae_encode", "", dataset] = 1 / rates[0]
    subject.per_image["vae_decode", "", dataset] = 1 / rates[1]
    text = (
        f"{dataset}: {count} images of {size}×{size} pixels, {rates[0]:.3g} encoded and {rates[1]:.3g} decoded a second"
    )
    if back.shape != images.shape or not latents.isfinite().all():
        return Line(
            "autoencoder",
            "FAILED",
            f"{text}: expected finite latents and images {tuple(images.shape)}: use other weights",
        )
    return Line("autoencoder", "ok", text)
