"""Data sets: from their sources to one form on disk, and from there in batches to training and evaluation."""

from nfpi.data.autoencoder import load_decoder
from nfpi.data.domain import Domain, domain_of, domain_of_flow
from nfpi.data.encode import encode_dataset
from nfpi.data.errors import DataError
from nfpi.data.sources.imagefolder import export_imagefolder
from nfpi.data.batches import augmented, batches, num_batches
from nfpi.data.pixels import Pixels, open_pixels
from nfpi.data.prepare import prepare_dataset
from nfpi.data.sources import SourceImages, load_source
from nfpi.data.store import ImageSet, read_image_set
from nfpi.data.transforms import BatchAugmentation, classifier_transform, training_transform
from nfpi.data.writer import ImageSetWriter, write_image_set

__all__ = [
    "BatchAugmentation",
    "DataError",
    "Domain",
    "ImageSet",
    "ImageSetWriter",
    "Pixels",
    "SourceImages",
    "augmented",
    "batches",
    "classifier_transform",
    "domain_of",
    "domain_of_flow",
    "encode_dataset",
    "export_imagefolder",
    "load_decoder",
    "load_source",
    "num_batches",
    "open_pixels",
    "prepare_dataset",
    "read_image_set",
    "training_transform",
    "write_image_set",
]
