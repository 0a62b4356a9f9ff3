# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from .anomaly_clip import AnomalyCLIP
from .backbone import Backbone, build_backbone
from .dpam import DualPathVision
from .frozen_clip import FrozenCLIPNetwork, Logits
from .prompt_checkpoint import PromptCheckpoint, convert_prompts, read_prompts, write_prompts
from .prompt_learner import PromptLearner
from .prompt_tuned import PromptTunedNetwork

__all__ = [
    "AnomalyCLIP",
    "Backbone",
    "DualPathVision",
    "FrozenCLIPNetwork",
    "Logits",
    "PromptCheckpoint",
    "PromptLearner",
    "PromptTunedNetwork",
    "build_backbone",
    "convert_prompts",
    "read_prompts",
    "write_prompts",
]
