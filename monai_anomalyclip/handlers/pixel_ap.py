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
