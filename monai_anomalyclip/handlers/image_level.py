# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Image AUROC and AP as metrics of MONAI's engines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from monai_anomalyclip.handlers.anomaly_metric import AnomalyMetricHandler
from monai_anomalyclip.metrics import ImageAPMetric, ImageAUROCMetric

__all__ = ["ImageAP", "ImageAUROC"]


class ImageAUROC(AnomalyMetricHandler):
    """Computes the AUROC of the images' anomaly scores.

    Unlike MONAI's ROCAUC it knows classes, and an undefined value says why.

    Args:
        output_transform: gives (scores, labels) from ``engine.state.output``, e.g.
            ``from_engine(["pred_anomaly_score", "label_image_label"])``.
        classes: gives the class of each item, for a value per class and their mean; see
            :class:`~monai_anomalyclip.handlers.anomaly_metric.AnomalyMetricHandler`.
    """

    def __init__(
        self, output_transform: Callable[..., Any] = lambda x: x, classes: Callable[..., Any] | None = None
    ) -> None:
        super().__init__(ImageAUROCMetric(), output_transform, classes)


class ImageAP(AnomalyMetricHandler):
    """Computes the average precision of the images' anomaly scores.

    Args:
        output_transform: as for :class:`ImageAUROC`.
        classes: as for :class:`ImageAUROC`.
    """

    def __init__(
        self, output_transform: Callable[..., Any] = lambda x: x, classes: Callable[..., Any] | None = None
    ) -> None:
        super().__init__(ImageAPMetric(), output_transform, classes)
