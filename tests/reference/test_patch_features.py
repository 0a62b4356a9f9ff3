# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from monai_anomalyclip.reference import join_stages


def test_one_stage_is_the_mean_over_its_neighbours_at_unit_length() -> None:
    stage = torch.rand(2, 5, 6, 6)
    features = join_stages([stage], (6, 6))
    assert features.shape == (2, 36, 5)
    inside = stage[1, :, 1:4, 2:5].mean((1, 2))  # around row 2, column 3
    assert torch.allclose(features[1, 2 * 6 + 3], inside / inside.norm(), atol=1e-6)
    corner = stage[0, :, :2, :2].mean((1, 2))  # nothing is added beyond the border
    assert torch.allclose(features[0, 0], corner / corner.norm(), atol=1e-6)


def test_raw_features_keep_their_length() -> None:
    stage = torch.rand(1, 3, 7, 7)
    sums = np.stack([ndimage.uniform_filter(c, 3, mode="constant") * 9 for c in stage[0].numpy()])
    counts = ndimage.uniform_filter(np.ones((7, 7)), 3, mode="constant") * 9
    found = join_stages([stage], (7, 7), normalise=False)[0].T.reshape(3, 7, 7).numpy()
    assert found == pytest.approx(sums / counts, abs=1e-5)


def test_stages_lie_side_by_side_and_weigh_the_same() -> None:
    stages = [1000 * torch.rand(1, 4, 8, 8), 0.001 * torch.rand(1, 7, 2, 2)]
    features = join_stages(stages, (4, 4))
    assert features.shape == (1, 16, 11)
    lengths = torch.stack([features[..., :4].norm(dim=-1), features[..., 4:].norm(dim=-1)])
    assert torch.allclose(lengths, torch.ones_like(lengths), atol=1e-5)


def test_a_constant_map_is_constant_on_every_grid() -> None:
    features = join_stages([torch.full((1, 2, 9, 9), 3.0)], (5, 5), normalise=False)
    assert torch.allclose(features, torch.full((1, 25, 2), 3.0), atol=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_no_numbers_are_refused(value: float) -> None:
    stage = torch.rand(1, 2, 4, 4)
    stage[0, 0, 1, 1] = value
    with pytest.raises(ValueError, match="NaN or infinite"):
        join_stages([stage], (4, 4), normalise=False)
