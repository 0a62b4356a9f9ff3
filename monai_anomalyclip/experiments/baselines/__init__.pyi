# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

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
