# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Windows that slide over the grid of patches, and what their scores say of each patch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["window_harmonic_mean", "window_patches"]


def window_patches(rows: int, columns: int, scale: int) -> Tensor:
    """Which patches each window covers; windows slide by one patch.

    Source: WinCLIP (CVPR 2023), section 4.2, the masks w_ij.

    Args:
        rows: patches per column of the grid.
        columns: patches per row of the grid.
        scale: side of a window, in patches.

    Returns:
        row-major numbers of the patches, ((rows - scale + 1) (columns - scale + 1), scale²), windows row-major.

    Raises:
        ValueError: when no window fits.
    """
    if not 1 <= scale <= min(rows, columns):
        raise ValueError(f"Windows of {scale} x {scale} patches do not fit a grid of {rows} x {columns} patches.")
    numbers = torch.arange(rows * columns).reshape(rows, columns)
    return numbers.unfold(0, scale, 1).unfold(1, scale, 1).reshape(-1, scale * scale)


def window_harmonic_mean(scores: Tensor, scale: int) -> Tensor:
    """Score of each patch: the harmonic mean over all windows that cover it.

    Source: WinCLIP (CVPR 2023), section 4.2, "Harmonic aggregation of windows".

    Args:
        scores: positive scores of the windows, (B, 1, rows - scale + 1, columns - scale + 1).
        scale: side of a window, in patches.

    Returns:
        (B, 1, rows, columns).
    """
    # Each patch sees the scale x scale window positions around it; outside the grid there are none. Pooling sums
    # exactly, where a convolution may be rounded to TF32.
    beyond = (scale - 1,) * 4
    reciprocals = F.avg_pool2d(F.pad(1 / scores, beyond), scale, stride=1)
    counts = F.avg_pool2d(F.pad(torch.ones_like(scores), beyond), scale, stride=1)
    return counts / reciprocals
