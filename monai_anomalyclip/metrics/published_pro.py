# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""PRO as AnomalyCLIP's authors compute it, for comparison with published figures only."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import auc

from monai_anomalyclip.metrics.ranking import Ranking

__all__ = ["THRESHOLDS", "published_pro"]

THRESHOLDS = 200


def published_pro(ranking: Ranking, fpr_limit: float = 0.3) -> float | None:
    """Area under 200 points of the PRO curve below a false positive rate, stretched to the rates that were met.

    The definition of the authors' code (and of the codes it stems from and that stem from it): thresholds are equally
    spaced between the lowest and the highest score, a pixel is flagged when it is above; points whose rate is below
    the limit are kept, their rates are rescaled to [0, 1] by their own minimum and maximum, and the area is that of
    the trapezoids. It depends on the scale of the scores and can be off by more than 0.1 from the exact value.

    Args:
        ranking: with the areas of the regions; finite, with normal and anomalous pixels.
        fpr_limit: in (0, 1].

    Returns:
        the area in [0, 1], or None where fewer than two different rates are below the limit.
    """
    lowest, highest = ranking.extremes
    step = (highest - lowest) / THRESHOLDS
    if not step > 0:
        return None
    thresholds = np.arange(lowest, highest, step)
    rate = 1 - np.searchsorted(ranking.normal, thresholds, side="right") / ranking.n_normal
    found = np.zeros(len(thresholds) + 1)  # shares of regions by how many of the thresholds flag them
    for group in ranking.groups():
        flagged_by = np.searchsorted(thresholds, group.score, side="left")
        found += np.bincount(flagged_by, group.share, minlength=len(found))
    overlap = found[::-1].cumsum()[::-1][1:] / found.sum()
    kept = rate < fpr_limit
    rate, overlap = rate[kept], overlap[kept]
    if len(rate) < 2 or rate.min() == rate.max():
        return None
    return float(auc((rate - rate.min()) / (rate.max() - rate.min()), overlap))
