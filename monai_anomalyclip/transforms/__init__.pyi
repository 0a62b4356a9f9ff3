# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from .annotation_answer import AnnotationAnswerD, AnnotationAnswerd, AnnotationAnswerDict
from .anomaly_map import (
    ResizeAnomalyMap,
    ResizeAnomalyMapD,
    ResizeAnomalyMapd,
    ResizeAnomalyMapDict,
    SmoothAnomalyMap,
    SmoothAnomalyMapD,
    SmoothAnomalyMapd,
    SmoothAnomalyMapDict,
    ThresholdAnomalyMap,
    ThresholdAnomalyMapD,
    ThresholdAnomalyMapd,
    ThresholdAnomalyMapDict,
    resize_anomaly_map,
    smooth_anomaly_map,
)
from .clip_preprocess import (
    CLIPMaskPreprocess,
    CLIPMaskPreprocessD,
    CLIPMaskPreprocessd,
    CLIPMaskPreprocessDict,
    CLIPPreprocess,
    CLIPPreprocessD,
    CLIPPreprocessd,
    CLIPPreprocessDict,
    clip_normalize_resize,
)
from .intensity import ScaleIntensityForCLIP, ScaleIntensityForCLIPD, ScaleIntensityForCLIPd, ScaleIntensityForCLIPDict
from .summary import SummarizeAnomalyD, SummarizeAnomalyd, SummarizeAnomalyDict

__all__ = [
    "AnnotationAnswerD",
    "AnnotationAnswerDict",
    "AnnotationAnswerd",
    "CLIPMaskPreprocess",
    "CLIPMaskPreprocessD",
    "CLIPMaskPreprocessDict",
    "CLIPMaskPreprocessd",
    "CLIPPreprocess",
    "CLIPPreprocessD",
    "CLIPPreprocessDict",
    "CLIPPreprocessd",
    "ResizeAnomalyMap",
    "ResizeAnomalyMapD",
    "ResizeAnomalyMapDict",
    "ResizeAnomalyMapd",
    "ScaleIntensityForCLIP",
    "ScaleIntensityForCLIPD",
    "ScaleIntensityForCLIPDict",
    "ScaleIntensityForCLIPd",
    "SmoothAnomalyMap",
    "SmoothAnomalyMapD",
    "SmoothAnomalyMapDict",
    "SmoothAnomalyMapd",
    "SummarizeAnomalyD",
    "SummarizeAnomalyDict",
    "SummarizeAnomalyd",
    "ThresholdAnomalyMap",
    "ThresholdAnomalyMapD",
    "ThresholdAnomalyMapDict",
    "ThresholdAnomalyMapd",
    "clip_normalize_resize",
    "resize_anomaly_map",
    "smooth_anomaly_map",
]
