# Copyright (c) monai_anomalyclip authors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
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
