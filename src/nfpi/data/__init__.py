"""Data sets: from their sources to one form on disk, and from there in batches to training and evaluation."""

from nfpi.data.domain import Domain, domain_of, domain_of_flow
from nfpi.data.errors import DataError
from nfpi.data.imagefolder import export_imagefolder
from nfpi.data.loader import augmented, batches, num_batches
from nfpi.data.prepare import prepare_dataset
from nfpi.data.sources import SourceImages, load_source
from nfpi.data.storage import ImageSet, read_image_set
from nfpi.data.transforms import classifier_transform, training_transform
from nfpi.data.writer import ImageSetWriter, write_image_set

__all__ = [
    "DataError",
    "Domain",
    "ImageSet",
    "ImageSetWriter",
    "SourceImages",
    "augmented",
    "batches",
    "classifier_transform",
    "domain_of",
    "domain_of_flow",
    "export_imagefolder",
    "load_source",
    "num_batches",
    "prepare_dataset",
    "read_image_set",
    "training_transform",
    "write_image_set",
]
