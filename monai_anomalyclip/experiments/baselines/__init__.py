# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The methods that AnomalyCLIP is compared with, behind the same network interface (see docs/baselines.md)."""

from __future__ import annotations

from monai_anomalyclip.experiments.baselines.adapter_file import read_adapters
from monai_anomalyclip.experiments.baselines.coop import CoOp
from monai_anomalyclip.experiments.baselines.fixed_prompts import FixedPrompts
from monai_anomalyclip.experiments.baselines.plain_clip import PlainCLIP
from monai_anomalyclip.experiments.baselines.plain_vision import PlainVision
from monai_anomalyclip.experiments.baselines.prompt_ensemble import ensemble_prompts
from monai_anomalyclip.experiments.baselines.vand import VAND
from monai_anomalyclip.experiments.baselines.vand_loss import VANDLoss
from monai_anomalyclip.experiments.baselines.winclip import WinCLIP
from monai_anomalyclip.experiments.baselines.windows import window_harmonic_mean, window_patches

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
