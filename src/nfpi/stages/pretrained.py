"""Work of the stages that use published networks: encoding by an autoencoder, download of a classifier's weights."""

from __future__ import annotations

from safetensors.torch import save

from nfpi.classifiers.registry import published_weights
from nfpi.data.encode import encode_dataset
from nfpi.runtime.devices import make_device
from nfpi.runtime.files import write_atomically
from nfpi.stages.options import DownloadWeights, EncodeData


def encode_data(stage: EncodeData) -> None:
    """Write the latents of the three splits."""
    device = make_device().device
    encode_dataset(stage.name, stage.dataset, stage.output, stage.download_folder, device, stage.workers)


def download_weights(stage: DownloadWeights) -> None:
    """Fetch the weights, and write them."""
    write_atomically(stage.path("weights"), save(published_weights(stage.model)))
