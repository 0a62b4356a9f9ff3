# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from .evaluation import ClassImages, classes_of, evaluate_class
from .network import BACKBONES, FullShotNetwork
from .patchcore import PatchCore
from .rd4ad import RD4AD
from .running import FullShotResults, run_full_shot

__all__ = [
    "BACKBONES",
    "RD4AD",
    "ClassImages",
    "FullShotNetwork",
    "FullShotResults",
    "PatchCore",
    "classes_of",
    "evaluate_class",
    "run_full_shot",
]
