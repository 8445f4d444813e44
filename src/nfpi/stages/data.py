"""Run the stages that prepare image sets, and that export them for other programs."""

from __future__ import annotations

from nfpi.data.export import export_imagefolder
from nfpi.data.prepare import prepare_dataset
from nfpi.data.store import META, read_image_set
from nfpi.runtime.divergence import raise_if_marked
from nfpi.stages.options import Export, PrepareData


def prepare_data(stage: PrepareData) -> None:
    """Write the train, validation and test splits."""
    prepare_dataset(stage.name, stage.dataset, stage.output, stage.download_folder)


def export(stage: Export) -> None:
    """Read the image set, and write its files."""
    raise_if_marked(stage.images / META)
    export_imagefolder(read_image_set(stage.images), stage.output)
