# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from .class_images import ClassImages, classes_of
from .evaluation import evaluate_class
from .network import FullShotNetwork
from .patchcore import PatchCore
from .rd4ad import RD4AD
from .results import FullShotResults
from .running import run_full_shot
from .wide_resnet import BACKBONES

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
