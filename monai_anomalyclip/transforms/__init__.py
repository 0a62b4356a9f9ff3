# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""CLIP pre-processing, intensity scaling and anomaly-map post-processing, as MONAI transforms."""

from __future__ import annotations

from monai_anomalyclip.transforms.annotation_answer import AnnotationAnswerD, AnnotationAnswerd, AnnotationAnswerDict
from monai_anomalyclip.transforms.anomaly_map import (
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
from monai_anomalyclip.transforms.clip_preprocess import (
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
from monai_anomalyclip.transforms.intensity import (
    ScaleIntensityForCLIP,
    ScaleIntensityForCLIPD,
    ScaleIntensityForCLIPd,
    ScaleIntensityForCLIPDict,
)
from monai_anomalyclip.transforms.summary import SummarizeAnomalyD, SummarizeAnomalyd, SummarizeAnomalyDict

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
