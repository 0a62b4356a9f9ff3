# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""PatchCore and RD4AD, which learn from a target's own normal images, through anomalib (see docs/baselines.md).

``python -m monai_anomalyclip.experiments.fullshot --help``
"""

from __future__ import annotations

from monai_anomalyclip.experiments.fullshot.class_images import ClassImages, classes_of
from monai_anomalyclip.experiments.fullshot.evaluation import evaluate_class
from monai_anomalyclip.experiments.fullshot.network import FullShotNetwork
from monai_anomalyclip.experiments.fullshot.patchcore import PatchCore
from monai_anomalyclip.experiments.fullshot.rd4ad import RD4AD
from monai_anomalyclip.experiments.fullshot.results import FullShotResults
from monai_anomalyclip.experiments.fullshot.wide_resnet import BACKBONES

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
