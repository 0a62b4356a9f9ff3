# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The published PRO computation, transcribed: a loop over 200 thresholds that labels every mask anew each time.

What the evaluation code of AnomalyCLIP, VAND and others does (all after the cflow-ad repository), with scipy's
labelling in place of scikit-image's.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from sklearn.metrics import auc

__all__ = ["published_pro_loop"]


def published_pro_loop(
    masks: npt.NDArray[np.uint8], maps: npt.NDArray[np.float32], steps: int = 200, fpr_limit: float = 0.3
) -> float:
    """PRO of maps (N, H, W) for masks (N, H, W) of 0 and 1."""
    binary = np.zeros_like(maps, dtype=bool)
    lowest, highest = maps.min(), maps.max()
    pros, rates = [], []
    for threshold in np.arange(lowest, highest, (highest - lowest) / steps):
        binary[maps <= threshold], binary[maps > threshold] = 0, 1
        overlaps = []
        for flagged, mask in zip(binary, masks, strict=True):
            labels, _ = ndimage.label(mask, structure=np.ones((3, 3)))
            for number, box in enumerate(ndimage.find_objects(labels), start=1):
                region = labels[box] == number
                overlaps.append(flagged[box][region].sum() / region.sum())
        inverse = 1 - masks
        rates.append(np.logical_and(inverse, binary).sum() / inverse.sum())
        pros.append(np.mean(overlaps))
    rate, pro = np.array(rates), np.array(pros)
    kept = rate < fpr_limit
    rate = rate[kept]
    return float(auc((rate - rate.min()) / (rate.max() - rate.min()), pro[kept]))
