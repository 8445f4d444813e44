from __future__ import annotations

import warnings

import numpy as np
import pytest

from nfpi.priors.inputs import check_labels


def _make_read_only(labels: np.ndarray) -> np.ndarray:
    labels.flags.writeable = False
    return labels


@pytest.mark.parametrize("labels", [_make_read_only(np.array([1, 0, 2])), np.array([2, 0, 1])[::-1], [1, 0, 2]])
def test_any_array_or_list_of_integers_gives_labels(labels):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_labels(labels).tolist() == [1, 0, 2]
