# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Handlers for MONAI's engines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .aupro import AUPRO
from .bootstrap_intervals import BootstrapIntervals
from .curve_plots import CurvePlots
from .evaluation_loss import EvaluationLoss
from .image_level import ImageAP, ImageAUROC
from .loss_terms import GlocalLossHandler
from .metric_table import MetricTable
from .pixel_ap import PixelAP
from .pixel_auroc import PixelAUROC
from .region_recall import RegionRecall
from .threshold_calibration import ThresholdCalibration
from .tuning_checkpoint import TuningCheckpoint, tuning_is_finished
from .unreadable_table import UnreadableTable
from .worst_cases import WorstCases

if TYPE_CHECKING:
    from .result_writer import AnomalyResultWriter

__all__ = [
    "AUPRO",
    "AnomalyResultWriter",
    "BootstrapIntervals",
    "CurvePlots",
    "EvaluationLoss",
    "GlocalLossHandler",
    "ImageAP",
    "ImageAUROC",
    "MetricTable",
    "PixelAP",
    "PixelAUROC",
    "RegionRecall",
    "ThresholdCalibration",
    "TuningCheckpoint",
    "UnreadableTable",
    "WorstCases",
    "tuning_is_finished",
]


def __getattr__(name: str) -> Any:
    # It needs highdicom, which MONAI Label's environment cannot have; tuning and inference there do without.
    if name == "AnomalyResultWriter":
        from .result_writer import AnomalyResultWriter

        return AnomalyResultWriter
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
