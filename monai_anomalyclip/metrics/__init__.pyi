# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from .anomaly_metric import PerClassMetric, higher_unless_nan
from .aupro import AUPROMetric, RegionRecallMetric
from .bootstrap import Interval, bootstrap_maps, bootstrap_scores
from .curves import plot_curves, pro_curve, roc_curve
from .image_level import ImageAPMetric, ImageAUROCMetric
from .pixel_metric import PixelAPMetric, PixelAUROCMetric
from .thresholds import ImageThresholdMetric, PixelThresholdMetric

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
