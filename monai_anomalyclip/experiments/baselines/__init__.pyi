# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from .coop import CoOp
from .plain_clip import PlainCLIP, PlainVision
from .prompt_ensemble import FixedPrompts, ensemble_prompts
from .retrieval import MemoryBuilder, Retrieval, read_memory
from .vand import VAND, VANDLoss, read_adapters
from .winclip import WinCLIP, window_harmonic_mean, window_patches

__all__ = [
    "VAND",
    "CoOp",
    "FixedPrompts",
    "MemoryBuilder",
    "PlainCLIP",
    "PlainVision",
    "Retrieval",
    "VANDLoss",
    "WinCLIP",
    "ensemble_prompts",
    "read_adapters",
    "read_memory",
    "window_harmonic_mean",
    "window_patches",
]
