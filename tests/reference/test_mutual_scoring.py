# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Oracle: the definition, by scipy's distances between all pairs of patches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from monai_anomalyclip.reference import mutual_scoring
from monai_anomalyclip.reference.mutual_scoring import (
    coarse_slabs,
    interval_average,
    nearest_of_volume,
    nearest_patches,
    pooled_slices,
)


@pytest.mark.parametrize("block", [3, 8192])
def test_scores_by_hand(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutual_scoring, "_BLOCK", block)
    images = torch.rand(8, 10, 4, generator=torch.Generator().manual_seed(2))
    for own in range(8):
        others = [images[index] for index in range(8) if index != own]
        found = interval_average(nearest_patches(images[own], one) for one in others)
        nearest = np.stack([cdist(images[own].numpy(), one.numpy()).min(1) for one in others])
        wanted = np.sort(nearest, axis=0)[:2].mean(0)  # 30 % of seven: two
        np.testing.assert_allclose(found.numpy(), wanted, atol=1e-5)


def test_one_other_and_none() -> None:
    one = torch.rand(5)
    assert torch.equal(interval_average([one]), one)
    with pytest.raises(ValueError, match="no other image"):
        interval_average([])


def test_tokens_of_a_volume() -> None:
    slices = torch.rand(6, 3, 2, generator=torch.Generator().manual_seed(2))
    tokens = pooled_slices(slices)
    assert torch.allclose(tokens[2], slices[1] / 4 + slices[2] / 2 + slices[3] / 4)
    assert torch.allclose(tokens[0], 3 * slices[0] / 4 + slices[1] / 4)
    assert coarse_slabs(slices, 4).shape == (2, 3, 2)
    assert torch.allclose(coarse_slabs(slices, 4)[1], slices[4:].mean(0))


def test_coarse_to_fine_equals_all_pairs_where_slabs_are_few() -> None:
    """Two slabs at most: both are chosen, and nothing is passed over."""
    generator = torch.Generator().manual_seed(3)
    volume, other = torch.rand(7, 5, 4, generator=generator), torch.rand(8, 5, 4, generator=generator)
    found = nearest_of_volume(volume, other)
    wanted = cdist(volume.flatten(0, 1).numpy(), other.flatten(0, 1).numpy()).min(1).reshape(7, 5)
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-5)


def test_slabs_are_matched_by_what_they_show() -> None:
    """A volume whose slabs lie in another order is matched all the same."""
    ramp = torch.arange(24.0)[:, None, None] // 4 * torch.ones(24, 6, 3) + 0.01 * torch.rand(24, 6, 3)
    turned = torch.cat(list(reversed(ramp.split(4))))
    assert float(nearest_of_volume(ramp, turned).max()) < 0.1
