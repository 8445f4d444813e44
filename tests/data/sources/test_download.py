"""A download that fails says what to fetch, and where to put it."""

from __future__ import annotations

from urllib.error import URLError

import pytest
from torchvision.datasets import CIFAR100, FashionMNIST

from nfpi.data import DataError
from nfpi.data.sources.download import download

CASES = {
    CIFAR100: ("https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz", "cifar-100-python (unpacked)"),
    FashionMNIST: ("train-images-idx3-ubyte.gz, received", "its 4 files (train-images-idx3-ubyte.gz and so on)"),
}


@pytest.mark.parametrize("kind", CASES)
def test_a_failed_download_names_the_address_the_file_and_the_setting(kind, tmp_path, monkeypatch):
    def fail(self):
        raise URLError("no network")

    monkeypatch.setattr(kind, "download", fail)
    (tmp_path / "FashionMNIST/raw").mkdir(parents=True)
    (tmp_path / "FashionMNIST/raw/train-images-idx3-ubyte.gz").touch()  # a part of it, as the connection broke off
    with pytest.raises(DataError) as error:
        download(kind, tmp_path)
    address, needed = CASES[kind]
    line = str(error.value)
    assert address in line
    assert needed in line
    assert "no network" in line
    assert "`folder:`" in line
    assert "\n" not in line
