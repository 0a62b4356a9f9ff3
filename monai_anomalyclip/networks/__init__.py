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
"""The network: a frozen CLIP driven along two vision paths, and the learned prompts."""

from __future__ import annotations

from .anomaly_clip import AnomalyCLIP
from .backbone import Backbone, build_backbone
from .frozen_clip import FrozenCLIPNetwork, Logits
from .prompt_checkpoint import PromptCheckpoint, convert_prompts, read_prompts, write_prompts
from .prompt_learner import PromptLearner
from .prompt_tuned import PromptTunedNetwork
from .vision_pass import DualPathVision

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
