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
"""PatchCore and RD4AD, which learn from a target's own normal images, through anomalib (see docs/baselines.md).

``python -m monai_anomalyclip.baselines.fullshot --help``
"""

from __future__ import annotations

from .backbone import BACKBONES
from .class_images import ClassImages, classes_of
from .evaluation import evaluate_class
from .network import FullShotNetwork
from .patchcore import PatchCore
from .rd4ad import RD4AD
from .results import FullShotResults

__all__ = [
    "BACKBONES",
    "RD4AD",
    "ClassImages",
    "FullShotNetwork",
    "FullShotResults",
    "PatchCore",
    "classes_of",
    "evaluate_class",
]
