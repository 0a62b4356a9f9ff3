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
"""Average precision over all pixels of a data set."""

from __future__ import annotations

import math
from typing import ClassVar

from monai_anomalyclip.metrics.pixel_metric import PixelMetric
from monai_anomalyclip.metrics.ranked_areas import average_precision, average_precision_error

__all__ = ["PixelAPMetric"]


class PixelAPMetric(PixelMetric):
    """Pixel-level average precision, all pixels of all images pooled (scikit-learn's definition).

    See :class:`~monai_anomalyclip.metrics.pixel_metric.PixelMetric` for the call and the arguments.
    """

    title: ClassVar[str] = "Pixel AP"

    def compute(self) -> tuple[float, str | None]:
        ranked = self.ranked()
        undefined = self.undefined(ranked)
        return (math.nan, undefined) if undefined else (float(average_precision(ranked.groups())), None)

    def error_bound(self) -> float:
        return 0.0 if self.method == "exact" else float(average_precision_error(self.ranked().groups()))
