# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor

from monai_anomalyclip.label.level_sets import level_names, level_set_labels


def test_counts_the_levels_that_are_reached() -> None:
    values = torch.tensor([[0.0, 0.49, 0.5, 0.74, 0.75, 0.89, 0.9, 1.0]])
    affine = torch.diag(torch.tensor([2.0, 3.0, 1.0, 1.0], dtype=torch.float64))
    labels = level_set_labels(MetaTensor(values, affine=affine))
    assert isinstance(labels, MetaTensor)
    assert labels.dtype == torch.uint8
    assert labels.tolist() == [[0, 0, 1, 1, 2, 2, 3, 3]]
    torch.testing.assert_close(labels.affine, affine)


def test_other_levels_and_arrays() -> None:
    labels = level_set_labels(np.array([0.1, 0.3, 0.95]), [0.2, 0.95])
    assert isinstance(labels, np.ndarray)
    assert labels.tolist() == [0, 1, 2]
    assert level_names([0.2, 0.95]) == {"anomaly_0.20": 1, "anomaly_0.95": 2}
    assert level_names() == {"anomaly_0.50": 1, "anomaly_0.75": 2, "anomaly_0.90": 3}


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        level_set_labels(torch.tensor([0.1, float("nan")]))


@pytest.mark.parametrize("levels", [[], [0.5, 0.5], [0.9, 0.5], [0.0], [1.1], [0.501]])
def test_levels_must_ascend_and_have_names(levels: list[float]) -> None:
    with pytest.raises(ValueError, match="ascending numbers"):
        level_set_labels(torch.zeros(1), levels)
