# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The network: a frozen CLIP driven along two vision paths, and the learned prompts."""

from __future__ import annotations

from monai_anomalyclip.networks.anomaly_clip import AnomalyCLIP
from monai_anomalyclip.networks.backbone import Backbone, build_backbone
from monai_anomalyclip.networks.calibrated_thresholds import (
    CalibratedThresholds,
    resolve_threshold,
    threshold_source,
    thresholds_path,
)
from monai_anomalyclip.networks.dpam import DualPathVision
from monai_anomalyclip.networks.frozen_clip import FrozenCLIPNetwork, Logits
from monai_anomalyclip.networks.prompt_checkpoint import PromptCheckpoint, convert_prompts, read_prompts, write_prompts
from monai_anomalyclip.networks.prompt_learner import PromptLearner
from monai_anomalyclip.networks.prompt_tuned import PromptTunedNetwork

__all__ = [
    "AnomalyCLIP",
    "Backbone",
    "CalibratedThresholds",
    "DualPathVision",
    "FrozenCLIPNetwork",
    "Logits",
    "PromptCheckpoint",
    "PromptLearner",
    "PromptTunedNetwork",
    "build_backbone",
    "convert_prompts",
    "read_prompts",
    "resolve_threshold",
    "threshold_source",
    "thresholds_path",
    "write_prompts",
]
