# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from types import ModuleType

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from monai_anomalyclip.metrics import RegionRecallMetric
from monai_anomalyclip.metrics.pixel_metric import label_regions


@pytest.mark.parametrize("overlap", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_recall_by_flood_fill(overlap: float, batch_size: int, brute: ModuleType) -> None:
    maps, masks = brute.random_maps(count=30, levels=10)
    metric = RegionRecallMetric(1.1, (3, 9), overlap)
    for start in range(0, 30, batch_size):
        metric(torch.tensor(maps[start : start + batch_size]), torch.tensor(masks[start : start + batch_size]))
    by_size: dict[str, list[bool]] = {"below 3 px": [], "3 to 8 px": [], "from 9 px": []}
    for scores, mask in zip(maps[:, 0], masks[:, 0], strict=True):
        for region in brute.flood_fill(mask):
            share = (scores[region] >= np.float32(1.1)).mean()
            area = region.sum()
            name = "below 3 px" if area < 3 else "3 to 8 px" if area < 9 else "from 9 px"
            by_size[name].append(bool(share > 0 and share >= overlap - 1e-9))
    everything = [hit for hits in by_size.values() for hit in hits]
    assert float(metric.aggregate()) == pytest.approx(np.mean(everything), abs=1e-12)
    details = metric.details()
    assert len(details) == 6
    for name, hits in by_size.items():
        assert hits
        assert details[name] == pytest.approx(np.mean(hits), abs=1e-12)
        assert details[f"regions {name}"] == len(hits)


def test_default_sizes_and_sizes_without_a_region() -> None:
    mask = torch.zeros(1, 1, 60, 60)
    mask[..., :40, :40] = 1
    metric = RegionRecallMetric()
    metric(mask, mask)
    assert float(metric.aggregate()) == 1
    details = metric.details()
    assert math.isnan(details["below 1024 px"])
    assert details["regions below 1024 px"] == 0
    assert details["1024 to 9215 px"] == details["regions 1024 to 9215 px"] == 1
    assert details["regions from 9216 px"] == 0


def test_without_classes_of_sizes() -> None:
    metric = RegionRecallMetric(sizes=())
    metric(torch.ones(1, 1, 4, 4), torch.eye(4)[None, None])
    assert float(metric.aggregate()) == 1
    assert dict(metric.details()) == {"all sizes": 1.0, "regions all sizes": 1.0}


def test_no_region_is_undefined() -> None:
    metric = RegionRecallMetric()
    metric(torch.rand(2, 1, 4, 4), torch.zeros(2, 1, 4, 4))
    with pytest.warns(UserWarning, match=r"Region recall is undefined \(NaN\): no mask has an anomalous region"):
        assert torch.isnan(metric.aggregate())
    with pytest.raises(ValueError, match="No maps have been given"):
        RegionRecallMetric().aggregate()


@pytest.mark.parametrize("sizes", [(0,), (5, 5), (9, 3)])
def test_arguments(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="sizes must be positive and ascending"):
        RegionRecallMetric(sizes=sizes)
    with pytest.raises(ValueError, match=r"overlap must lie in \[0, 1\]"):
        RegionRecallMetric(overlap=1.5)


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
