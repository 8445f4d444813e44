"""Vectors and their classes in files: npz archives of arrays, or csv and parquet tables."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np

from nfpi.config.base import Split
from nfpi.config.datasets import DataError, DatasetConfig
from nfpi.data.prepare import SourceImages
from nfpi.runtime.faults import format_error

_ENDINGS = (".npz", ".csv", ".parquet")


def load_arrays(config: DatasetConfig, download_folder: Path) -> SourceImages:
    """Read a file, or a folder with train.npz and, if it has them, test.npz and validation.npz; csv and parquet alike.

    A table has a column of classes, named by the setting `label`, and numbers in all others. An npz file has one array
    of vectors (N, D) besides that of the classes (N,). The classes are those of the training file, sorted.

    Raises:
        DataError: a file is missing or damaged, or contains something else.
    """
    if config.folder is None:
        raise DataError("source 'arrays': expected its file or folder in `folder`, received none")
    files = _find_files(config.folder)
    read = {split: _read(file, config.label) for split, file in files.items()}
    classes = np.unique(read["train"][1])
    splits = {}
    for split, (vectors, names, columns) in read.items():
        if unknown := set(names) - set(classes):
            raise DataError(f"{files[split]}: expected the classes of {files['train']}, received {min(unknown)!r}")
        if columns != read["train"][2]:
            expected, received = (", ".join(map(str, names)) for names in (read["train"][2], columns))
            raise DataError(f"{files[split]}: expected the columns {expected}, received {received}")
        splits[split] = vectors[:, None, None], np.searchsorted(classes, names)
    return SourceImages([str(name) for name in classes], splits)


def _find_files(folder: Path) -> dict[Split, Path]:
    """Return the file of each split; a single file is that of the training split."""
    if folder.is_file():
        return {"train": folder}
    found: dict[Split, Path] = {
        split: file for split in get_args(Split) for ending in _ENDINGS if (file := folder / (split + ending)).is_file()
    }
    if "train" not in found:
        raise DataError(f"{folder}: expected a file, or a folder with train.npz, .csv or .parquet, received neither")
    return found


def _read(file: Path, label: str) -> tuple[np.ndarray, np.ndarray, list[str | int]]:
    """Return vectors (N, D), float32, the names of their classes (N,), and the names of the columns, or numbers."""
    import pandas as pd

    try:
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            names = arrays.pop(label)
            (vectors,) = arrays.values()
            table = pd.DataFrame(vectors)
        else:
            # a class may be called NA
            csv = file.suffix == ".csv"
            table = pd.read_csv(file, keep_default_na=False, na_values=[""]) if csv else pd.read_parquet(file)
            names = table.pop(label).to_numpy()
        values = table.to_numpy(np.float32)
    except Exception as error:  # each reader has its own, for a damaged file or a missing column
        expected = f"numbers (N, D) and classes '{label}' (N,)"
        raise DataError(f"{file}: expected {expected}, received others ({format_error(error, 200)})") from None
    if names.shape != values.shape[:1] or pd.isna(names).any() or not np.isfinite(values).all():
        received = f"{values.shape}, {names.shape}, with NaN, infinity or a row without a class"
        raise DataError(f"{file}: expected finite numbers (N, D) and N classes, received {received}")
    return values, names.astype(str), list(table.columns)
