import gzip
import hashlib
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10, CIFAR100, FashionMNIST

from nfpi.config.base import ConfigError
from nfpi.config.datasets import DatasetConfig
from nfpi.data import DataError, SourceImages, load_source, prepare_dataset, read_image_set, register_source
from nfpi.data.sources.published import read_idx


def _idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def _write_fashion(folder: Path, compressed: bool) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    folder.mkdir(parents=True, exist_ok=True)
    generator, written = np.random.default_rng(0), {}
    for stem, count in (("train", 40), ("t10k", 20)):
        images, labels = (
            generator.integers(0, 256, (count, 28, 28), np.uint8),
            np.arange(count, dtype=np.uint8) % 10,
        )
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            content, ending = (gzip.compress(_idx(array)), ".gz") if compressed else (_idx(array), "")
            (folder / f"{stem}-{kind}-ubyte{ending}").write_bytes(content)
        written["train" if stem == "train" else "test"] = images, labels
    return written


def _refused(config: DatasetConfig, folder: Path, match: str) -> None:
    with pytest.raises(DataError, match=match) as caught:
        load_source(config, folder)
    assert "\n" not in str(caught.value)


def test_digits_use_the_whole_range(tmp_path):
    source = load_source(DatasetConfig(source="digits"), tmp_path)
    images, labels = source.splits["train"]
    assert source.classes == list("0123456789")
    assert (images.shape, images.dtype, labels.dtype) == ((1797, 8, 8, 1), np.uint8, np.int64)
    assert (images.min(), images.max()) == (0, 255)
    assert np.allclose(images[..., 0] / 255 * 16, load_digits().images, atol=16 / 255 / 2)


def test_classes_that_are_left_out_are_those_kept_by_another_data_set(tmp_path):
    whole, kept, left_out = (
        load_source(DatasetConfig(source="digits", only_classes=names), tmp_path)
        for names in (None, ["7", "0", "9"], [*list("123456"), "8"])
    )
    assert kept.classes == ["0", "7", "9"]
    assert DatasetConfig(source="digits", only_classes=["7", "0", "9"]).num_classes == 3
    for part in (kept, left_out):
        images, labels = part.splits["train"]
        named = {name: images[labels == k] for k, name in enumerate(part.classes)}
        all_images, all_labels = whole.splits["train"]
        assert all(np.array_equal(named[name], all_images[all_labels == int(name)]) for name in part.classes)
    assert len(kept.splits["train"][0]) + len(left_out.splits["train"][0]) == 1797


def test_a_class_that_a_source_lacks_cannot_be_kept(tmp_path):
    _refused(DatasetConfig(source="digits", only_classes=["0", "ten"]), tmp_path, "only_classes.*'ten'")


@pytest.mark.parametrize("settings", [{"vae": "vae", "only_classes": ["cat", "dog"]}, {"only_classes": ["cat", "cat"]}])
def test_classes_are_named_once_and_not_of_latents(settings):
    with pytest.raises(ValidationError, match="only_classes"):
        DatasetConfig(source="imagefolder", folder="images", **settings)


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("inside", ["", "FashionMNIST/raw"])
def test_fashion_mnist_lies_in_the_folder_or_where_torchvision_puts_it(tmp_path, compressed, inside):
    written = _write_fashion(tmp_path / inside, compressed)
    source = load_source(DatasetConfig(source="fashion_mnist", folder=tmp_path), tmp_path / "unused")
    assert source.classes == FashionMNIST.classes
    for split, (images, labels) in written.items():
        assert np.array_equal(source.splits[split][0], images[..., None])
        assert np.array_equal(source.splits[split][1], labels)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0\x0d\x01\0\0\0\x01\0\0\0\0",
        _idx(np.zeros((3, 2), np.uint8))[:-1],
        _idx(np.zeros((3, 2), np.uint8)) + b"\0",
        _idx(np.zeros((3, 2), np.uint8))[:10],
        b"\0\0\x08\x04" + 4 * b"\0\1\0\0",
        b"\0\0\x08\x04\0\0\0\0" + 3 * b"\xff\xff\xff\xff",
        b"\0\0\x08\x46" + 70 * b"\0\0\0\1" + b"\7",
    ],
)
def test_damaged_idx_files_are_refused(tmp_path, content):
    for name, damaged in (
        ("file", content),
        ("file.gz", gzip.compress(content)),
        ("cut.gz", gzip.compress(content)[:-9]),
    ):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(DataError, match=f"^{tmp_path}/{name}: "):
            read_idx(tmp_path / name)


@pytest.mark.parametrize(
    ("source", "name"), [("fashion_mnist", "train-images-idx3-ubyte"), ("cifar100", CIFAR100.base_folder)]
)
def test_missing_files_are_named(tmp_path, source, name):
    _refused(DatasetConfig(source=source, folder=tmp_path), tmp_path, name)


class _Payload:
    """Unpickling it makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


@pytest.mark.parametrize(("source", "kind"), [("cifar10", CIFAR10), ("cifar100", CIFAR100)])
def test_no_pickle_with_a_foreign_checksum_is_opened(tmp_path, source, kind):
    folder = tmp_path / kind.base_folder
    folder.mkdir()
    for name in [name for name, _ in (*kind.train_list, *kind.test_list)] + [kind.meta["filename"]]:
        (folder / name).write_bytes(pickle.dumps(_Payload(tmp_path / "opened")))
    first = kind.train_list[0][0]
    _refused(DatasetConfig(source=source, folder=tmp_path), tmp_path, kind.base_folder)
    assert not (tmp_path / "opened").exists()
    pickle.loads((folder / first).read_bytes())
    assert (tmp_path / "opened").exists()  # it would have been


def test_cifar_in_torchvisions_form(tmp_path, monkeypatch):
    """Files whose checksums torchvision is told to know."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    generator = np.random.default_rng(0)
    sums, pixels = {}, {}
    for name, content in (
        (
            "data_batch_1",
            {"data": generator.integers(0, 256, (20, 3072), np.uint8), "labels": [*range(10)] * 2},
        ),
        ("test_batch", {"data": generator.integers(0, 256, (10, 3072), np.uint8), "labels": [*range(10)]}),
        ("batches.meta", {"label_names": list("abcdefghij")}),
    ):
        (folder / name).write_bytes(pickle.dumps(content))
        sums[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
        pixels[name] = content.get("data")
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", sums["data_batch_1"]]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": sums["batches.meta"]})
    source = load_source(DatasetConfig(source="cifar10", folder=tmp_path), tmp_path / "unused")
    assert source.classes == list("abcdefghij")
    for split, name in (("train", "data_batch_1"), ("test", "test_batch")):
        images, labels = source.splits[split]
        assert np.array_equal(images.transpose(0, 3, 1, 2).reshape(len(images), -1), pixels[name])
        assert (images.dtype, labels.dtype) == (np.uint8, np.int64)
    (folder / "batches.meta").write_bytes(b"")
    _refused(DatasetConfig(source="cifar10", folder=tmp_path), tmp_path, CIFAR10.base_folder)


# ---- sources of the user's own --------------------------------------------------------------------------------


@pytest.mark.usefixtures("restored_sources")
def test_a_registered_source_is_prepared_like_the_others(tmp_path):
    @register_source("stripes")
    def load_stripes(config: DatasetConfig, download_folder: Path) -> SourceImages:
        assert download_folder == tmp_path
        images = np.arange(40, dtype=np.uint8)[:, None, None, None].repeat(4, 1).repeat(4, 2)
        return SourceImages(["low", "high"], {"train": (images, np.arange(40) // 20)})

    prepare_dataset("mine", DatasetConfig(source="stripes", validation_fraction=0.2), tmp_path / "sets", tmp_path)
    counts = [len(read_image_set(tmp_path / "sets" / split)) for split in ("train", "validation", "test")]
    assert counts == [25, 7, 8]
    with pytest.raises(ConfigError, match="source 'digits'"):
        register_source("digits")(load_stripes)


@pytest.mark.usefixtures("restored_sources")
def test_a_source_that_gives_something_else_is_refused(tmp_path):
    register_source("wrong")(lambda config, download_folder: (np.zeros(3), np.zeros(3)))
    register_source("testless")(lambda config, download_folder: SourceImages(["a"], {}))
    for name, received in (("wrong", "tuple"), ("testless", r"splits \[\]")):
        expected = f"source '{name}':.*{received}"
        _refused(DatasetConfig(source=name), tmp_path, expected)


IMAGES, LABELS = np.zeros((4, 8, 8, 1), np.uint8), np.arange(4) % 2


@pytest.mark.parametrize(
    ("classes", "splits", "named"),
    [
        (["a", "b"], {"train": (np.zeros((4, 3, 8, 8), np.uint8), LABELS)}, "train: "),  # channels first
        (["a", "b"], {"train": (IMAGES.astype(np.float32), LABELS)}, "train: .*float32"),
        (["a", "b"], {"train": (IMAGES, LABELS[:3])}, r"train: .*\(3,\)"),
        (["a", "b"], {"train": (IMAGES, np.array(list("abab")))}, "train: .*<U1"),
        (["a", "b"], {"train": (IMAGES, LABELS + 1)}, "train: .*1 to 2"),
        (["a", "b"], {"valid": (IMAGES, LABELS)}, "valid"),
        ([0, 1], {"train": (IMAGES, LABELS)}, "classes: "),
        (["a", "a"], {"train": (IMAGES, LABELS)}, "classes: "),
    ],
)
def test_images_labels_splits_and_classes_of_another_form_are_refused(classes, splits, named):
    with pytest.raises(DataError, match=named):
        SourceImages(classes, splits)
