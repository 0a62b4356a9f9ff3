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
"""Evaluation metrics."""

from __future__ import annotations

from .aupro import AUPROMetric
from .bootstrap import Interval, bootstrap_maps, bootstrap_scores
from .calibration import CalibratedThresholds, resolve_threshold, thresholds_path
from .comparison import higher_unless_nan
from .curves import plot_curves, pro_curve, roc_curve
from .image_level import ImageAPMetric, ImageAUROCMetric
from .per_class import PerClassMetric
from .pixel_ap import PixelAPMetric
from .pixel_auroc import PixelAUROCMetric
from .region_recall import RegionRecallMetric
from .thresholds import ImageThresholdMetric, PixelThresholdMetric

__all__ = [
    "AUPROMetric",
    "CalibratedThresholds",
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
    "resolve_threshold",
    "roc_curve",
    "thresholds_path",
]
