"""Seconds of the jobs of a preset on one core before any was measured, from the speed that was measured elsewhere.

The speed is that of a core of a server of 2020, for matrix-exponential flows and ResNet18; on another machine, a job
may take half or twice as long. Other backbones and classifiers, and data sets of unknown size, are not estimated.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from math import prod

from nfpi.config.datasets import SOURCES, DataError
from nfpi.config.flows import MatrixExponentialSettings
from nfpi.config.settings import Config
from nfpi.projection.work import Images, Work, list_work
from nfpi.runs import COMMON_SPLITS

START = 4.0
"""seconds in which a job starts, and does what is not counted"""
_TRAININGS = ("start_flow", "train_flow", "train_classifier")
"""stages that train; each of their jobs is one training"""
LONG = (*_TRAININGS, "encode_data", "evaluate", "generate", "augment")
"""stages with much work"""
_PER_BLOCK, _PER_PRODUCT = 1.5e-3, 3.6e-10
"""seconds of a step of a flow per block of its coupling networks, and per pixel, block and pair of hidden channels"""
_PER_IMAGE, _PER_PIXEL = 2e-3, 3.5e-5
"""seconds of a step of ResNet18 per image, and per pixel of the images"""
_PASS = 1 / 3
"""time of a pass without gradients relative to that of a training step"""


def estimate_jobs(config: Config) -> tuple[dict[str, tuple[int, float]], bool]:
    """Estimate the jobs of each stage with much work: their number, and the mean seconds of one on one core.

    Returns:
        Number and seconds by stage, and whether they are complete; jobs that cannot be estimated are left out.
    """
    counted = {name: count_images(config, name) for name in config.datasets}
    sizes = {name: images for name, images in counted.items() if images is not None}
    seconds: defaultdict[str, float] = defaultdict(float)
    jobs: Counter[str] = Counter()
    is_complete = True
    for work in list_work(config, sizes):
        found = _estimate_batch(config, work) if work.dataset in sizes else None
        if found is None:
            is_complete = False
            continue
        seconds[work.stage] += work.batches * found
        jobs[work.stage] += work.trainings if work.is_step or work.stage not in _TRAININGS else 0
    return {stage: (count, START + seconds[stage] / count) for stage, count in jobs.items() if count}, is_complete


def count_images(config: Config, dataset: str) -> Images | None:
    """Return the sizes of a data set, for a folder of images by counting its files; None: they are not known yet."""
    block = config.datasets[dataset]
    if "images" in SOURCES[block.source].traits:
        return Images.of(block)
    if block.source != "imagefolder" or block.folder is None or not block.folder.is_dir() or block.shape is None:
        return None
    from nfpi.data.prepare import assign_splits
    from nfpi.data.sources.imagefolder import list_image_folder
    from nfpi.data.sources.registry import choose_classes

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


def _estimate_batch(config: Config, work: Work) -> float | None:
    """Estimate the seconds of a batch; None for other models than matrix-exponential flows and ResNet18."""
    own, pixels = config.for_dataset(work.dataset), prod(work.shape[1:])
    share = 1 if work.is_step else _PASS
    if work.kind.startswith("classifier"):
        is_known = own.classifiers[work.subject].model == "resnet18"
        return share * work.batch * (_PER_IMAGE + _PER_PIXEL * pixels) if is_known else None
    flow = own.flows.get(work.subject)
    if not isinstance(flow, MatrixExponentialSettings):
        return None
    levels = list(zip(flow.num_flows, flow.num_blocks, flow.hidden_channels, strict=True))
    blocks = sum(flows * (1 + inner) for flows, inner, _ in levels)
    products = sum(flows * (1 + inner) * width**2 / 4**level for level, (flows, inner, width) in enumerate(levels))
    return share * (_PER_BLOCK * blocks + _PER_PRODUCT * products * work.batch * pixels)
