from .autoencoder import encode_dataset as encode_dataset
from .autoencoder import load_decoder as load_decoder
from .batches import Transform as Transform
from .batches import augment_each as augment_each
from .batches import load_batches as load_batches
from .batches import num_batches as num_batches
from .domain import Domain as Domain
from .domain import LatentDomain as LatentDomain
from .domain import PixelDomain as PixelDomain
from .domain import choose_domain as choose_domain
from .prepare import SourceImages as SourceImages
from .prepare import load_source as load_source
from .prepare import prepare_dataset as prepare_dataset
from .prepare import register_source as register_source
from .sources.imagefolder import export_imagefolder as export_imagefolder
from .sources.imagefolder import read_image_folder as read_image_folder
from .store import DataError as DataError
from .store import ImageSet as ImageSet
from .store import Pixels as Pixels
from .store import open_pixels as open_pixels
from .store import read_image_set as read_image_set
from .transforms import training_transform as training_transform
from .writer import ImageSetWriter as ImageSetWriter
from .writer import write_image_set as write_image_set

__all__ = [
    "DataError",
    "Domain",
    "ImageSet",
    "ImageSetWriter",
    "LatentDomain",
    "PixelDomain",
    "Pixels",
    "SourceImages",
    "Transform",
    "augment_each",
    "choose_domain",
    "encode_dataset",
    "export_imagefolder",
    "load_batches",
    "load_decoder",
    "load_source",
    "num_batches",
    "open_pixels",
    "prepare_dataset",
    "read_image_folder",
    "read_image_set",
    "register_source",
    "training_transform",
    "write_image_set",
]
