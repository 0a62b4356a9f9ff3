# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
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
