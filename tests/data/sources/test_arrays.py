"""Vectors and classes are the same from each kind of file, and prepared with what standardises them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from nfpi.config.datasets import DatasetConfig
from nfpi.data import DataError, choose_domain, prepare_dataset, read_image_set
from nfpi.data.prepare import load_source

VECTORS = np.random.default_rng(0).normal([5, -100], [0.1, 30], (40, 2)).astype(np.float32)
KINDS = np.array(["red", "blue"])[np.arange(40) % 2]


def write(file: Path, vectors: np.ndarray = VECTORS, kinds: np.ndarray = KINDS) -> Path:
    file.parent.mkdir(exist_ok=True)
    table = pd.DataFrame(vectors).add_prefix("x").assign(kind=kinds)
    if file.suffix == ".npz":
        np.savez(file, features=vectors, kind=kinds)
    else:
        table.to_csv(file, index=False) if file.suffix == ".csv" else table.to_parquet(file)
    return file


def read(path: Path, label: str = "kind"):
    return load_source(DatasetConfig(source="arrays", folder=path, label=label), path)


@pytest.mark.parametrize("ending", ["npz", "csv", "parquet"])
def test_vectors_are_the_same_from_each_kind_of_file(tmp_path: Path, ending: str) -> None:
    source = read(write(tmp_path / f"all.{ending}"))
    assert source.classes == ["blue", "red"]
    vectors, labels = source.splits["train"]
    np.testing.assert_array_equal(vectors, VECTORS[:, None, None])
    np.testing.assert_array_equal(labels, KINDS == "red")


@pytest.mark.parametrize("name", ["NA", "None", "null"])
def test_a_class_may_have_a_name_that_pandas_takes_for_missing(tmp_path: Path, name: str) -> None:
    assert read(write(tmp_path / "all.csv", kinds=np.where(KINDS == "red", name, KINDS))).classes == sorted(
        ["blue", name]
    )


def test_folder_has_a_file_for_each_split(tmp_path: Path) -> None:
    write(tmp_path / "data/train.csv")
    write(tmp_path / "data/test.parquet", VECTORS[:3], KINDS[1:4])
    source = read(tmp_path / "data")
    assert {split: len(labels) for split, (_, labels) in source.splits.items()} == {"train": 40, "test": 3}
    assert source.splits["test"][1].tolist() == [0, 1, 0]


def test_prepared_vectors_are_standardised_by_the_training_split(tmp_path: Path) -> None:
    config = DatasetConfig(source="arrays", folder=write(tmp_path / "all.csv"), label="kind", validation_fraction=0.2)
    prepare_dataset("toy", config, tmp_path / "splits", tmp_path)
    train = read_image_set(tmp_path / "splits/train")
    domain = choose_domain(train.meta, grey_noise=0, latent_noise=0)

    x = domain.to_flow(torch.from_numpy(np.array(train.images)).permute(0, 3, 1, 2), None).numpy()
    np.testing.assert_allclose(x.mean(0).ravel(), 0, atol=1e-4)
    np.testing.assert_allclose(x.std(0).ravel(), 1, atol=1e-4)
    assert read_image_set(tmp_path / "splits/test").meta["extra"]["std"] == train.meta["extra"]["std"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"other.csv": (VECTORS, KINDS)}, "a folder with train.npz, .csv or .parquet, received neither"),
        (
            {"train.csv": (VECTORS, KINDS), "test.csv": (VECTORS[:, :1], KINDS)},
            "test.csv: expected the columns x0, x1, received x0",
        ),
        ({"train.csv": (VECTORS, KINDS), "test.csv": (VECTORS, KINDS + "dish")}, "expected the classes of .*bluedish"),
        ({"train.csv": (np.where(VECTORS > 5, np.nan, VECTORS), KINDS)}, "finite numbers"),
        ({"train.csv": (VECTORS, np.where(VECTORS[:, 0] > 5, "", KINDS))}, "a row without a class"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, files, message) -> None:
    for name, content in files.items():
        write(tmp_path / "data" / name, *content)
    with pytest.raises(DataError, match=message):
        read(tmp_path / "data")


@pytest.mark.parametrize("ending", ["npz", "csv", "parquet"])
def test_missing_classes_are_one_line(tmp_path: Path, ending: str) -> None:
    with pytest.raises(DataError, match="classes 'species'"):
        read(write(tmp_path / f"all.{ending}"), "species")


@pytest.mark.parametrize("ending", ["npz", "parquet"])
def test_damaged_files_are_one_line(tmp_path: Path, ending: str) -> None:
    file = write(tmp_path / f"all.{ending}")
    file.write_bytes(file.read_bytes()[:30])
    with pytest.raises(DataError, match=f"all.{ending}: expected numbers"):
        read(file)


def test_pickled_classes_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "pickled.npz", features=VECTORS, kind=KINDS.astype(object))
    with pytest.raises(DataError, match="pickled"):
        read(tmp_path / "pickled.npz")
