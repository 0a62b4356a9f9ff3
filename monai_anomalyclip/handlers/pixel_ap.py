# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Pixel average precision as a metric of MONAI's engines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from monai_anomalyclip.handlers.anomaly_metric import AnomalyMetricHandler
from monai_anomalyclip.metrics import PixelAPMetric

__all__ = ["PixelAP"]


class PixelAP(AnomalyMetricHandler):
    """Computes the average precision over all pixels of the validation set.

    Args:
        output_transform: gives (maps, masks) from ``engine.state.output``; see
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
        super().__init__(PixelAPMetric(method), output_transform, classes)
