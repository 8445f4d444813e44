"""Autoencoder (diffusers' AutoencoderKL) on whose latents a flow may be trained, and data sets of such latents."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor
from tqdm import tqdm

from nfpi.config.base import Split
from nfpi.config.datasets import DataError, DatasetConfig
from nfpi.data.image_files import check_size, read_image
from nfpi.data.prepare import OUTPUTS, SEED_FOLDERS, assign_splits, make_extra
from nfpi.data.sources.files import AUTOENCODER_FILES, find_image_root, list_autoencoder, list_source
from nfpi.data.sources.imagefolder import list_image_folder, warn_of_unread_folders
from nfpi.data.store import META
from nfpi.data.writer import ImageSetWriter, LabelledRows, replace_folder
from nfpi.priors.statistics import ClassStatistics
from nfpi.runtime.checkpoints import Checkpoints
from nfpi.runtime.faults import format_error
from nfpi.runtime.precision import tensor_float32

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

logger = logging.getLogger(__name__)

_ROWS_PER_BLOCK = 1024
HALF_RANGE = 127.5
"""half the range of 8-bit values; inputs of the autoencoder are image/127.5 − 1"""


def load_autoencoder(folder: Path, device: torch.device | str) -> AutoencoderKL:
    """Load an autoencoder in float32 from config.json and diffusion_pytorch_model.safetensors.

    Nothing is downloaded.

    Raises:
        DataError: diffusers is not installed, or the folder does not contain such an autoencoder.
    """
    try:
        from diffusers import AutoencoderKL
    except ImportError as error:
        raise DataError(f"vae: expected diffusers (pip install 'nfpi[imagenet]'), received none ({error})") from None
    # a model's config.json may be foreign: a name on the hub or a pipe is no folder of an autoencoder
    if not all((folder / name).is_file() for name in AUTOENCODER_FILES):
        raise DataError(f"{folder}: expected a diffusers AutoencoderKL, received no {' and '.join(AUTOENCODER_FILES)}")
    try:
        # only safetensors: the alternative is a pickle
        loaded, info = AutoencoderKL.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            low_cpu_mem_usage=False,  # avoids a warning about accelerate
            output_loading_info=True,
        )
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        reason = format_error(error)
        raise DataError(f"{folder}: expected a diffusers AutoencoderKL, received something else ({reason})") from None
    if info["missing_keys"]:  # these would be random
        raise DataError(
            f"{folder}: expected all weights of the autoencoder, received none for {info['missing_keys'][0]}"
        )
    autoencoder: AutoencoderKL = loaded.float().to(device).eval()
    return autoencoder.requires_grad_(False)


def compute_latent_shape(autoencoder: AutoencoderKL, height: int, width: int) -> tuple[int, int, int]:
    """Compute the shape (h, w, C) of the latents of images of H×W pixels.

    Raises:
        DataError: H or W is not a multiple of the autoencoder's downsampling factor.
    """
    reduction = 2 ** (len(autoencoder.config.block_out_channels) - 1)
    if height % reduction or width % reduction:
        raise DataError(f"image_size: expected a multiple of {reduction} for this vae, received {width}×{height}")
    return height // reduction, width // reduction, autoencoder.config.latent_channels


@torch.no_grad()
@tensor_float32()
def encode(autoencoder: AutoencoderKL, images: Tensor) -> Tensor:
    """Encode images as the means of their latent distributions, unscaled.

    Convolutions are in TF32 on GPUs that support it: its mantissa has 10 bits like that of float16, the dtype in which
    latents are stored.

    Args:
        autoencoder: autoencoder on any device.
        images: (B, 3, H, W), uint8.

    Returns:
        (B, C, h, w), float32, on the autoencoder's device.
    """
    latents: Tensor = autoencoder.encode(images.to(autoencoder.device).float() / HALF_RANGE - 1).latent_dist.mode()
    return latents


@torch.no_grad()
def decode(autoencoder: AutoencoderKL, latents: Tensor) -> Tensor:
    """Decode latents to 8-bit images, rounded and clipped.

    Args:
        autoencoder: autoencoder on any device.
        latents: (B, C, h, w), unscaled.

    Returns:
        (B, 3, H, W), uint8, on the autoencoder's device.
    """
    pixels: Tensor = autoencoder.decode(latents.to(autoencoder.device).float()).sample.float()
    return ((pixels + 1) * HALF_RANGE).round().clamp(0, 255).to(torch.uint8)


def load_decoder(meta: Mapping[str, Any], device: torch.device | str) -> Callable[[Tensor], Tensor]:
    """Load the decoder of stored latents.

    Args:
        meta: metadata of a set of latents, or `data` of a model trained on such a set. `extra.vae` is the folder of the
            autoencoder; latents were divided by `extra.scale` before they were stored.
        device: device of the autoencoder.

    Returns:
        A function from stored latents (B, C, h, w), float16, to images (B, 3, H, W), uint8, on `device`.

    Raises:
        DataError: `meta` does not describe latents, or the autoencoder cannot be read.
    """
    extra = meta["extra"]
    if "vae" not in extra or "scale" not in extra:
        raise DataError(f"{meta['name']}: expected latents with extra.vae and extra.scale, received none")
    autoencoder, scale = load_autoencoder(Path(extra["vae"]), device), float(extra["scale"])
    return lambda latents: decode(autoencoder, latents.float() * scale)


# ---- data sets of latents -------------------------------------------------------------------------------------------


def encode_dataset(
    name: str,
    config: DatasetConfig,
    output: Path,
    download_folder: Path,
    device: torch.device | str,
    workers: int = 1,
) -> None:
    """Write `output`/{train,validation,test} as latents of the autoencoder `config.vae`, either all or none.

    Images are read and split as by :func:`nfpi.data.prepare.prepare_dataset`. Latents are the means of the encoder,
    divided by the largest absolute value in the training set, and stored as float16. In the `meta.json` of each split,
    `extra` contains this `scale`, the `spread` of the scaled training latents (standard deviation of each element,
    C×h×w), the `vae` and the `image_folder`; `files.json` lists the images in that folder, in order.

    The unscaled training latents temporarily take another 4·N·h·w·C bytes of disk (21 GB for ImageNet). An interrupted
    call is resumed by the next one.

    Args:
        name: name of the data set.
        config: settings of an image folder with a `vae`.
        output: folder of the three sets; existing ones are replaced.
        download_folder: folder where an archive is unpacked.
        device: device of the autoencoder.
        workers: threads that read images; they do not affect the result.

    Raises:
        DataError: an image is damaged, the autoencoder cannot be read, a class has too few images in a split, or the
            latents are not finite.
        OSError: a file cannot be opened.
    """
    if config.source != "imagefolder" or config.vae is None:
        raise DataError(f"{name}: expected an imagefolder with a vae to encode")
    root = find_image_root(config.folder, download_folder).resolve()
    images = list_image_folder(root, config.skip or ())
    warn_of_unread_folders(images)
    assigned = assign_splits(name, config, images.labels, images.classes)
    size = read_image(root / images.names["train"][0], config.image_size)[0].shape[:2]
    autoencoder = load_autoencoder(config.vae, device)
    shape = compute_latent_shape(autoencoder, *size)
    encoder = _Encoder(autoencoder, root, config.image_size, size, config.encode_batch_size, workers)
    names = {split: [images.names[origin][index] for index in chosen] for split, (origin, chosen) in assigned.items()}
    labels = {split: images.labels[origin][chosen] for split, (origin, chosen) in assigned.items()}
    source = list_source(config.source, root, config.skip or ()), list_autoencoder(config.vae)
    digests = [files.compute_digest(download_folder) for files in source]
    resume_key = _compute_resume_key(config, root, digests, [names[split] for split in get_args(Split)])

    with replace_folder(output, OUTPUTS, resume_key, SEED_FOLDERS) as partial:

        def write_split(
            split: Split, extra: dict[str, Any], make_latents: Callable[[list[str], int], Iterable[np.ndarray]]
        ) -> None:
            """Write a split, from the latents that `make_latents` makes of its files from an index on."""
            with ImageSetWriter(
                partial / split,
                len(names[split]),
                shape,
                images.classes,
                name=name,
                split=split,
                dtype=np.float16,
                originals=names[split],
                resume_key=resume_key,
                **extra,
            ) as writer:
                start = encoder.round_to_batches(writer.rows.first_missing)
                latents = ((batch / extra["scale"]).astype(np.float16) for batch in make_latents(names[split], start))
                _put_from(start, writer, latents, labels[split])
            logger.info("%s: %d %s images encoded", name, len(names[split]), split)

        if not (partial / "train").is_dir():
            unscaled = _encode_unscaled(partial / "unscaled.npy", names["train"], shape, encoder, resume_key)
            scale, spread = _compute_scale_and_spread(unscaled)
            origin = {"image_folder": str(root), "vae": str(config.vae.resolve())}
            extra = make_extra(config, assigned) | origin | {"scale": scale, "spread": (spread / scale).tolist()}
            write_split("train", extra, lambda _, start: _read_blocks(unscaled[start:]))
        (partial / "unscaled.npy").unlink(missing_ok=True)
        Checkpoints(partial, resume_key).clear()  # the progress of the unscaled latents
        extra = json.loads((partial / "train" / META).read_text(encoding="utf-8"))["extra"]
        for split in get_args(Split):
            if not (partial / split).is_dir():
                write_split(split, extra, encoder.encode_files)


def _compute_resume_key(config: DatasetConfig, root: Path, digests: list[str], names: list[list[str]]) -> str:
    """Compute a digest of everything that the latents depend on; `digests` are those of images and autoencoder."""
    settings = config.model_dump(mode="json", exclude={"encode_batch_size", "overrides"})
    content = json.dumps([settings, str(root), digests, names], ensure_ascii=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _encode_unscaled(
    path: Path, names: list[str], shape: tuple[int, ...], encoder: _Encoder, resume_key: str
) -> np.ndarray:
    """Encode files to an array on disk, (N, h, w, C), float32; those that an earlier process encoded are kept."""
    rows = LabelledRows(path, (len(names), *shape), np.float32, resume_key)
    start = encoder.round_to_batches(rows.first_missing)
    with rows.saved_if_stopped(f"latents in {path}"):
        _put_from(start, rows, encoder.encode_files(names, start), np.zeros(len(names), np.int64))
    return rows.array


def _put_from(
    start: int, rows: ImageSetWriter | LabelledRows, batches: Iterable[np.ndarray], labels: np.ndarray
) -> None:
    """Write batches of latents in order, from this index on."""
    for batch in batches:
        places = np.arange(start, start + len(batch))
        rows.put(places, batch, labels[places])
        start += len(batch)


def _compute_scale_and_spread(array: np.ndarray) -> tuple[float, torch.Tensor]:
    """Compute the largest absolute value of latents (N, h, w, C), and the standard deviation per element, (C, h, w)."""
    height, width, channels = array.shape[1:]
    statistics, largest = ClassStatistics.empty(1, channels * height * width), 0.0
    for latents in _read_blocks(array):
        largest = max(largest, float(np.abs(latents).max()))
        one_class = torch.zeros(len(latents), dtype=torch.int64)
        statistics.update(torch.from_numpy(latents).permute(0, 3, 1, 2), one_class)
    return largest, statistics.variance[0].sqrt().view(channels, height, width)


def _read_blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    """Iterate over an array on disk in blocks that are loaded into memory."""
    return (np.array(array[start : start + _ROWS_PER_BLOCK]) for start in range(0, len(array), _ROWS_PER_BLOCK))


@dataclass(frozen=True)
class _Encoder:
    """Encoder of image files in batches; threads read the next batch while the current one is encoded."""

    autoencoder: AutoencoderKL
    root: Path
    image_size: int | None
    """size that images are resized and centre-cropped to; None: no resizing"""
    size: tuple[int, ...]
    """(height, width) that every image must then have"""
    batch_size: int
    workers: int

    def round_to_batches(self, done: int) -> int:
        """Return the index to resume from after `done` files, rounded down to a whole number of batches."""
        return done // self.batch_size * self.batch_size

    def encode_files(self, names: Sequence[str], start: int) -> Iterator[np.ndarray]:
        """Encode the files from index `start` on, in order; yields unscaled latents (B, h, w, C), float32."""
        names = names[start:]
        with tqdm(total=len(names), desc="encode", unit="image", leave=False, disable=None) as progress:
            for images in self._read_images(names):
                batch = encode(self.autoencoder, torch.from_numpy(images).permute(0, 3, 1, 2))
                yield batch.permute(0, 2, 3, 1).contiguous().cpu().numpy()
                progress.update(len(images))

    def _read_images(self, names: Sequence[str]) -> Iterator[np.ndarray]:
        """Read the files in order; yields pixels (B, H, W, 3), uint8."""
        chunks = [names[start : start + self.batch_size] for start in range(0, len(names), self.batch_size)]
        with ThreadPoolExecutor(self.workers) as pool:  # Pillow releases the GIL
            ahead: Iterator[np.ndarray] = iter(())
            for chunk in [*chunks, []]:
                current, ahead = ahead, pool.map(self._read_image, chunk)  # begins to read at once
                images = list(current)
                if images:
                    yield np.stack(images)

    def _read_image(self, name: str) -> np.ndarray:
        path = self.root / name
        image, _ = read_image(path, self.image_size)
        check_size(path, image, self.size)
        return image
