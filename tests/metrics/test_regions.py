# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import SimpleITK as sitk

from monai_anomalyclip.metrics.regions import label_regions


@pytest.mark.parametrize("density", [0.05, 0.3, 0.5])
def test_regions_of_simpleitk(density: float) -> None:
    mask = np.random.default_rng(0).random((40, 31)) < density
    numbers, areas = label_regions(mask)
    labels = sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)), True))
    assert len(areas) == labels.max()
    pairs = {(int(a), int(b)) for a, b in zip(numbers, labels[mask], strict=True)}
    assert len(pairs) == len(areas)  # the same parts, however they are numbered
    np.testing.assert_array_equal(np.sort(areas), np.sort(np.bincount(labels.ravel())[1:]))


def test_regions_by_flood_fill(brute: ModuleType) -> None:
    mask = np.random.default_rng(1).random((12, 9)) < 0.35
    numbers, areas = label_regions(mask)
    regions = brute.flood_fill(mask)
    assert len(regions) == len(areas) > 2
    for region in regions:
        (number,) = set(numbers[region[mask]].tolist())
        assert areas[number] == region.sum()


def test_pixels_that_touch_by_a_corner_are_one_region() -> None:
    numbers, areas = label_regions(np.eye(5, dtype=bool))
    assert numbers.tolist() == [0] * 5
    assert areas.tolist() == [5]


def test_edges_of_the_picture_do_not_touch() -> None:
    mask = np.zeros((6, 8), dtype=bool)
    mask[[0, -1], [0, -1]] = True
    assert label_regions(mask)[1].tolist() == [1, 1]


def test_nothing_and_everything() -> None:
    numbers, areas = label_regions(np.zeros((4, 5), dtype=bool))
    assert len(numbers) == len(areas) == 0
    numbers, areas = label_regions(np.ones((4, 5), dtype=bool))
    assert areas.tolist() == [20]
    assert numbers.tolist() == [0] * 20
