# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Handlers for MONAI's engines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from monai_anomalyclip.handlers.anomaly_metric import AUPRO, ImageAP, ImageAUROC, PixelAP, PixelAUROC, RegionRecall
from monai_anomalyclip.handlers.bootstrap_intervals import BootstrapIntervals
from monai_anomalyclip.handlers.curve_plots import CurvePlots
from monai_anomalyclip.handlers.evaluation_loss import EvaluationLoss
from monai_anomalyclip.handlers.loss_terms import GlocalLossHandler
from monai_anomalyclip.handlers.metric_table import MetricTable
from monai_anomalyclip.handlers.threshold_calibration import ThresholdCalibration
from monai_anomalyclip.handlers.tuning_checkpoint import TuningCheckpoint, tuning_is_finished
from monai_anomalyclip.handlers.unreadable_table import UnreadableTable
from monai_anomalyclip.handlers.worst_cases import WorstCases

if TYPE_CHECKING:
    from monai_anomalyclip.handlers.result_writer import AnomalyResultWriter

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
        from monai_anomalyclip.handlers.result_writer import AnomalyResultWriter

        return AnomalyResultWriter
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
