# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Area under the ROC curve over all pixels of a data set."""

from __future__ import annotations

import math
from typing import ClassVar

from monai_anomalyclip.metrics.pixel_metric import PixelMetric
from monai_anomalyclip.metrics.ranked_areas import auroc, auroc_error

__all__ = ["PixelAUROCMetric"]


class PixelAUROCMetric(PixelMetric):
    """Pixel-level AUROC, all pixels of all images pooled, as the paper reports it (scikit-learn's definition).

    See :class:`~monai_anomalyclip.metrics.pixel_metric.PixelMetric` for the call and the arguments.
    """

    title: ClassVar[str] = "Pixel AUROC"

    def compute(self) -> tuple[float, str | None]:
        ranked = self.ranked()
        undefined = self.undefined(ranked)
        return (math.nan, undefined) if undefined else (float(auroc(ranked.groups(), ranked.n_normal)), None)

    def error_bound(self) -> float:
        if self.method == "exact":
            return 0.0
        ranked = self.ranked()
        return float(auroc_error(ranked.groups(), ranked.n_normal))
