# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from .anomaly_metric import AUPRO, ImageAP, ImageAUROC, PixelAP, PixelAUROC, RegionRecall
from .bootstrap_intervals import BootstrapIntervals
from .curve_plots import CurvePlots
from .evaluation_maps import EvaluationMaps
from .loss_terms import EvaluationLoss, GlocalLossHandler, ProximalTerm
from .metric_table import MetricTable, UnreadableTable
from .result_writer import AnomalyResultWriter
from .threshold_calibration import ThresholdCalibration
from .tuning_checkpoint import TuningCheckpoint, tuning_is_finished
from .worst_cases import WorstCases

__all__ = [
    "AUPRO",
    "AnomalyResultWriter",
    "BootstrapIntervals",
    "CurvePlots",
    "EvaluationLoss",
    "EvaluationMaps",
    "GlocalLossHandler",
    "ImageAP",
    "ImageAUROC",
    "MetricTable",
    "PixelAP",
    "PixelAUROC",
    "ProximalTerm",
    "RegionRecall",
    "ThresholdCalibration",
    "TuningCheckpoint",
    "UnreadableTable",
    "WorstCases",
    "tuning_is_finished",
]
