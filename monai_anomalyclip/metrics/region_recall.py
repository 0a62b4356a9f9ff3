# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""How many of the anomalous regions are found, by their size."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from monai_anomalyclip.metrics.anomaly_metric import AnomalyMetric
from monai_anomalyclip.metrics.pixel_metric import label_regions, numpy_maps_and_masks

__all__ = ["COCO_SIZES", "RegionRecallMetric"]

COCO_SIZES = (32**2, 96**2)


class RegionRecallMetric(AnomalyMetric):
    """Share of the 8-connected anomalous regions that are found; every region counts the same.

    A region is found when the map reaches the threshold in one of its pixels, or in a given share of them. Called as
    :class:`~monai_anomalyclip.metrics.pixel_metric.PixelMetric`.

    Args:
        threshold: of the maps.
        sizes: areas in pixels that divide the regions into classes, ascending; default is COCO's small, medium and
            large (below 32**2, below 96**2, the rest).
        overlap: share of a region's pixels that must reach the threshold, in [0, 1]; 0 stands for a single pixel.

    Raises:
        ValueError: sizes are not positive and ascending, or the overlap is out of range.

    Example:
        >>> metric = RegionRecallMetric(threshold=0.5)
        >>> _ = metric(y_pred=torch.tensor([[[[0.1, 0.2], [0.7, 0.9]]]]), y=torch.tensor([[[[0, 0], [0, 1]]]]))
        >>> float(metric.aggregate())
        1.0
    """

    title: ClassVar[str] = "Region recall"

    def __init__(self, threshold: float = 0.5, sizes: Sequence[int] = COCO_SIZES, overlap: float = 0.0) -> None:
        edges = [0, *sizes]
        if any(low >= high for low, high in itertools.pairwise(edges)):
            raise ValueError(f"sizes must be positive and ascending areas in pixels, got {list(sizes)}.")
        if not 0 <= overlap <= 1:
            raise ValueError(f"overlap must lie in [0, 1], got {overlap}.")
        self.threshold = threshold
        self.sizes = tuple(sizes)
        self.overlap = overlap
        self._details: dict[str, float] = {}
        super().__init__()

    def buffer_dtypes(self) -> tuple[torch.dtype, ...]:
        return (torch.int64, torch.int64, torch.int64)

    def compute(self) -> tuple[float, str | None]:
        area, reached = (tensor.numpy() for tensor in self.pooled()[1:])
        found = reached >= np.maximum(1, np.ceil(self.overlap * area - 1e-9))
        size = np.searchsorted(self.sizes, area, side="right")
        self._details = {}
        for index, name in enumerate(self._names()):
            own = found[size == index]
            self._details[name] = float(own.mean()) if len(own) else math.nan
            self._details[f"regions {name}"] = float(len(own))
        return (float(found.mean()), None) if len(found) else (math.nan, "no mask has an anomalous region")

    def details(self) -> Mapping[str, float]:
        """Recall and number of regions for each class of sizes, once the metric is aggregated; NaN where none is."""
        return self._details

    def _names(self) -> list[str]:
        if not self.sizes:
            return ["all sizes"]
        between = [f"{low} to {high - 1} px" for low, high in itertools.pairwise(self.sizes)]
        return [f"below {self.sizes[0]} px", *between, f"from {self.sizes[-1]} px"]

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> list[Tensor]:
        maps, masks = numpy_maps_and_masks(y_pred, y)
        areas, reached = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for scores, mask in zip(maps, masks, strict=True):
            numbers, area = label_regions(mask)
            areas.append(area)
            reached.append(np.bincount(numbers[scores[mask] >= np.float32(self.threshold)], minlength=len(area)))
        images = torch.tensor([len(maps)])  # so that images without regions also count as given
        return [images, *(torch.from_numpy(np.concatenate(parts)) for parts in (areas, reached))]
