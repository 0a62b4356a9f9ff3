# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""AUPRO as a metric of MONAI's engines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from monai_anomalyclip.handlers.anomaly_metric import AnomalyMetricHandler
from monai_anomalyclip.metrics import AUPROMetric

__all__ = ["AUPRO"]


class AUPRO(AnomalyMetricHandler):
    """Computes the area under the per-region overlap curve over the validation set.

    Args:
        output_transform: gives (maps, masks) from ``engine.state.output``; see
            :class:`~monai_anomalyclip.handlers.anomaly_metric.AnomalyMetricHandler`.
        classes: gives the class of each item, for a value per class and their mean.
        method: "exact", "histogram" for constant memory, or "thresholds_200" for comparison with published PRO.
        fpr_limit: up to which false positive rate the curve counts, in (0, 1].
    """

    def __init__(
        self,
        output_transform: Callable[..., Any] = lambda x: x,
        classes: Callable[..., Any] | None = None,
        method: Literal["exact", "thresholds_200", "histogram"] = "exact",
        fpr_limit: float = 0.3,
    ) -> None:
        super().__init__(AUPROMetric(method, fpr_limit), output_transform, classes)
