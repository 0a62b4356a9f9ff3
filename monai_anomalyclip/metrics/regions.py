# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Anomalous regions of a mask: pixels that touch, also by a corner."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

__all__ = ["label_regions"]

_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)


def label_regions(mask: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Find the 8-connected regions of a mask, as every published PRO does.

    Args:
        mask: (H, W), True where anomalous.

    Returns:
        the region's number, from 0, of every anomalous pixel in the order of ``mask[mask]``, (pixels,); and the area
        in pixels of every region, (regions,).
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return np.empty(0, np.int32), np.empty(0, np.int64)
    window = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]  # most of a mask is normal
    labels, _ = ndimage.label(window, structure=_EIGHT_NEIGHBOURS)
    numbers = labels[window].astype(np.int32) - 1
    return numbers, np.bincount(numbers)
