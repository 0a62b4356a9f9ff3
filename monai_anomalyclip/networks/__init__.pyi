# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from .anomaly_clip import AnomalyCLIP, PromptTunedNetwork
from .backbone import Backbone, build_backbone, describe_clip
from .calibrated_thresholds import CalibratedThresholds, resolve_threshold, threshold_source, thresholds_path
from .devices import default_device, local_device, resolve_precision, start_process_group, stop_process_group
from .dpam import DualPathVision
from .frozen_clip import FrozenCLIPNetwork
from .prompt_checkpoint import PromptCheckpoint, convert_prompts, read_prompts, write_prompts
from .prompt_learner import PromptLearner

__all__ = [
    "AnomalyCLIP",
    "Backbone",
    "CalibratedThresholds",
    "DualPathVision",
    "FrozenCLIPNetwork",
    "PromptCheckpoint",
    "PromptLearner",
    "PromptTunedNetwork",
    "build_backbone",
    "convert_prompts",
    "default_device",
    "describe_clip",
    "local_device",
    "read_prompts",
    "resolve_precision",
    "resolve_threshold",
    "start_process_group",
    "stop_process_group",
    "threshold_source",
    "thresholds_path",
    "write_prompts",
]
