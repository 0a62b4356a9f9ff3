# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Recall of anomalous regions as a metric of MONAI's engines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from monai_anomalyclip.handlers.anomaly_metric import AnomalyMetricHandler
from monai_anomalyclip.metrics import RegionRecallMetric
from monai_anomalyclip.metrics.region_recall import COCO_SIZES

__all__ = ["RegionRecall"]


class RegionRecall(AnomalyMetricHandler):
    """Computes the share of anomalous regions that are found, over all and by size.

    ``engine.state.metrics["name/below 1024 px"]`` and so on hold the recall of a size, ``"name/regions below 1024 px"``
    how many there are; with ``classes`` the details are those of the classes instead.

    Args:
        output_transform: gives (maps, masks) from ``engine.state.output``; see
            :class:`~monai_anomalyclip.handlers.anomaly_metric.AnomalyMetricHandler`.
        classes: gives the class of each item, for a value per class and their mean.
        threshold: of the maps.
        sizes: areas in pixels that divide the regions into classes of sizes, ascending.
        overlap: share of a region's pixels that must reach the threshold; 0 stands for a single pixel.
    """

    def __init__(
        self,
        output_transform: Callable[..., Any] = lambda x: x,
        classes: Callable[..., Any] | None = None,
        threshold: float = 0.5,
        sizes: Sequence[int] = COCO_SIZES,
        overlap: float = 0.0,
    ) -> None:
        super().__init__(RegionRecallMetric(threshold, sizes, overlap), output_transform, classes)
