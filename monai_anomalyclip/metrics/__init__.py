# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Evaluation metrics."""

from __future__ import annotations

from monai_anomalyclip.metrics.aupro import AUPROMetric
from monai_anomalyclip.metrics.bootstrap import Interval, bootstrap_maps, bootstrap_scores
from monai_anomalyclip.metrics.comparison import higher_unless_nan
from monai_anomalyclip.metrics.curves import plot_curves, pro_curve, roc_curve
from monai_anomalyclip.metrics.image_level import ImageAPMetric, ImageAUROCMetric
from monai_anomalyclip.metrics.per_class import PerClassMetric
from monai_anomalyclip.metrics.pixel_metric import PixelAPMetric, PixelAUROCMetric
from monai_anomalyclip.metrics.region_recall import RegionRecallMetric
from monai_anomalyclip.metrics.thresholds import ImageThresholdMetric, PixelThresholdMetric

__all__ = [
    "AUPROMetric",
    "ImageAPMetric",
    "ImageAUROCMetric",
    "ImageThresholdMetric",
    "Interval",
    "PerClassMetric",
    "PixelAPMetric",
    "PixelAUROCMetric",
    "PixelThresholdMetric",
    "RegionRecallMetric",
    "bootstrap_maps",
    "bootstrap_scores",
    "higher_unless_nan",
    "plot_curves",
    "pro_curve",
    "roc_curve",
]
