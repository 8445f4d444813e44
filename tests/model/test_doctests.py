"""Examples in docstrings are run."""

from __future__ import annotations

import doctest

import pytest

from nfpi import sklearn
from nfpi.model import class_conditional


@pytest.mark.parametrize("module", [class_conditional, sklearn], ids=lambda module: module.__name__)
def test_the_examples_of_a_module_run(module):
    found = doctest.testmod(module)
    assert found.attempted > 3
    assert not found.failed
