"""Run the stages that use published networks: encoding by an autoencoder and download of classifier weights."""

from __future__ import annotations

from safetensors.torch import save

from nfpi.classifiers.registry import published_weights
from nfpi.data.encode import encode_dataset
from nfpi.runtime.devices import make_device
from nfpi.runtime.files import write_atomically
from nfpi.stages.options import DownloadWeights, EncodeData


def encode_data(stage: EncodeData) -> None:
    """Encode the three splits, and write their latents."""
    device = make_device().device
    encode_dataset(stage.name, stage.dataset, stage.output, stage.download_folder, device, stage.workers)


def download_weights(stage: DownloadWeights) -> None:
    """Download the weights, and write them."""
    write_atomically(stage.get_path("weights"), save(published_weights(stage.model)))
