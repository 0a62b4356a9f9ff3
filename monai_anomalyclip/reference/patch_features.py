# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Patch features from the feature maps of an encoder's stages.

Source: PatchCore (Roth et al., CVPR 2022), section 3.1, with two differences: stages meet on one coarse grid, and each
is brought to unit length, so that none outweighs the others by the size of its numbers (docs/explanation/conformal.md).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["join_stages"]


def join_stages(
    stages: Sequence[Tensor], grid: tuple[int, int], *, normalise: bool = True, check: bool = True
) -> Tensor:
    """Join feature maps of several stages to one feature vector per patch.

    Each map is averaged over 3 x 3, resampled to the grid, and each of its vectors is divided by its length.

    Args:
        stages: feature maps (B, C_s, h_s, w_s).
        grid: patches (rows, columns).
        normalise: bring the vectors of each stage to unit length.
        check: look for NaN and infinities, which cannot be traced.

    Returns:
        (B, rows * columns, sum of C_s), float32, patches row by row.

    Raises:
        ValueError: a feature is NaN or infinite.

    Example::

        join_stages([torch.rand(1, 40, 36, 36), torch.rand(1, 112, 18, 18)], (18, 18)).shape  # (1, 324, 152)
    """
    joined = []
    for stage in stages:
        smooth = F.avg_pool2d(stage.float(), 3, stride=1, padding=1, count_include_pad=False)
        if smooth.shape[-2:] != grid:
            smooth = F.interpolate(smooth, size=grid, mode="bilinear", align_corners=False, antialias=True)
        joined.append(F.normalize(smooth, dim=1, eps=1e-6) if normalise else smooth)
    features = torch.cat(joined, dim=1).flatten(2).transpose(1, 2)
    if check and not bool(features.isfinite().all()):
        raise ValueError("The encoder gave features that are NaN or infinite: its weights do not fit, or are damaged.")
    return features
