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
