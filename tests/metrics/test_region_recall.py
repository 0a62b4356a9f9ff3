# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from types import ModuleType

import numpy as np
import pytest
import torch

from monai_anomalyclip.metrics import RegionRecallMetric


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
