"""A download that fails says what to fetch, and where to put it."""

from __future__ import annotations

from urllib.error import URLError

import pytest
from torchvision.datasets import CIFAR100, FashionMNIST

from nfpi.config.datasets import DatasetConfig
from nfpi.data import DataError
from nfpi.data.sources.published import load_cifar, load_fashion_mnist

CASES = {
    CIFAR100: (load_cifar, "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"),
    FashionMNIST: (load_fashion_mnist, FashionMNIST.mirrors[0]),
}


@pytest.mark.parametrize("kind", CASES)
def test_a_failed_download_names_the_address_the_reason_and_the_setting(kind, tmp_path, monkeypatch):
    def fail(self):
        raise URLError("no network")

    monkeypatch.setattr(kind, "download", fail)
    load, address = CASES[kind]
    with pytest.raises(DataError) as error:
        load(DatasetConfig(source="cifar100"), tmp_path)
    line = str(error.value)
    assert all(part in line for part in (address, "no network", "`folder:`"))
    assert "\n" not in line
