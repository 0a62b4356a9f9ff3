# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Pixel AUROC as a metric of MONAI's engines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from monai_anomalyclip.handlers.anomaly_metric import AnomalyMetricHandler
from monai_anomalyclip.metrics import PixelAUROCMetric

__all__ = ["PixelAUROC"]


class PixelAUROC(AnomalyMetricHandler):
    """Computes the AUROC over all pixels of the validation set.

    Args:
        output_transform: gives (maps, masks) from ``engine.state.output``, e.g.
            ``from_engine(["anomaly_map", "label"])``; see
            :class:`~monai_anomalyclip.handlers.anomaly_metric.AnomalyMetricHandler`.
        classes: gives the class of each item, for a value per class and their mean.
        method: "exact", or "histogram" for constant memory.
    """

    def __init__(
        self,
        output_transform: Callable[..., Any] = lambda x: x,
        classes: Callable[..., Any] | None = None,
        method: Literal["exact", "histogram"] = "exact",
    ) -> None:
        super().__init__(PixelAUROCMetric(method), output_transform, classes)
