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
"""The methods that AnomalyCLIP is compared with, behind the same network interface (see docs/baselines.md)."""

from __future__ import annotations

from .adapter_file import read_adapters
from .coop import CoOp
from .fixed_prompts import FixedPrompts
from .plain_clip import PlainCLIP
from .plain_vision import PlainVision
from .prompt_ensemble import ensemble_prompts
from .vand import VAND
from .vand_loss import VANDLoss
from .winclip import WinCLIP
from .windows import window_harmonic_mean, window_patches

__all__ = [
    "VAND",
    "CoOp",
    "FixedPrompts",
    "PlainCLIP",
    "PlainVision",
    "VANDLoss",
    "WinCLIP",
    "ensemble_prompts",
    "read_adapters",
    "window_harmonic_mean",
    "window_patches",
]
