# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""AUROC, average precision and AUPRO of ranked pixels, and how far a histogram can be off.

Every anomalous pixel adds its own part to each of the areas, so that none of the curves has to be drawn: with ``x0``
the share of normal pixels above its score and ``x1`` the share at or above it, ROC and PRO rise by the pixel's weight
along the straight line from ``x0`` to ``x1``. This is the trapezoidal rule over every distinct score.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_anomalyclip.metrics.ranking import TiedGroups

__all__ = ["aupro", "aupro_error", "auroc", "auroc_error", "average_precision", "average_precision_error"]

FloatArray = npt.NDArray[np.float64]
Count = int | npt.NDArray[Any]


def auroc(groups: Iterable[TiedGroups], n_normal: Count) -> FloatArray:
    """Area under the ROC curve: the chance that an anomalous pixel scores higher than a normal one, ties half.

    Args:
        groups: arrays (..., groups).
        n_normal: number of normal pixels, (...).

    Returns:
        (...), NaN where there is no normal or no anomalous pixel.
    """
    below, anomalous = np.float64(0), np.float64(0)
    for group in groups:
        rate = _rate(group.normal_above + 0.5 * group.normal_tied, n_normal)
        below = below + (group.anomalous * (1 - rate)).sum(axis=-1)
        anomalous = anomalous + group.anomalous.sum(axis=-1)
    return np.asarray(_ratio(below, anomalous))


def average_precision(groups: Iterable[TiedGroups]) -> FloatArray:
    """Average precision, the mean over anomalous pixels of the precision at their score (scikit-learn's definition).

    Returns:
        (...), NaN where there is no anomalous pixel.
    """
    precise, anomalous = np.float64(0), np.float64(0)
    for group in groups:
        true = group.anomalous_above + group.anomalous
        flagged = true + group.normal_above + group.normal_tied
        precise = precise + (group.anomalous * (true / np.maximum(flagged, 1))).sum(axis=-1)
        anomalous = anomalous + group.anomalous.sum(axis=-1)
    return np.asarray(_ratio(precise, anomalous))


def aupro(groups: Iterable[TiedGroups], n_normal: Count, fpr_limit: float) -> FloatArray:
    """Area under the mean overlap of regions against the false positive rate up to a limit, over that limit.

    MVTec's definition (Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 2021, section 5.2): every distinct
    score is a threshold, the curve starts at (0, 0) and is interpolated at the limit.

    Args:
        groups: arrays (..., groups), with shares.
        n_normal: number of normal pixels, (...).
        fpr_limit: in (0, 1].

    Returns:
        (...) in [0, 1], NaN where there is no normal pixel or no region.
    """
    area, regions = np.float64(0), np.float64(0)
    for group in groups:
        area = area + (_shares(group) * _risen(group, n_normal, fpr_limit)).sum(axis=-1)
        regions = regions + _shares(group).sum(axis=-1)
    return np.asarray(_ratio(area, regions) / fpr_limit)


def auroc_error(groups: Iterable[TiedGroups], n_normal: Count) -> FloatArray:
    """Bound of what :func:`auroc` can be off when the pixels of a group only look tied, being in one bin.

    Within a bin the true curve stays in the rectangle that the bin spans; the chord is off by half of it at most.
    """
    error, anomalous = np.float64(0), np.float64(0)
    for group in groups:
        error = error + (group.anomalous * _rate(0.5 * group.normal_tied, n_normal)).sum(axis=-1)
        anomalous = anomalous + group.anomalous.sum(axis=-1)
    return np.asarray(_ratio(error, anomalous))


def average_precision_error(groups: Iterable[TiedGroups]) -> FloatArray:
    """Bound for :func:`average_precision`, as :func:`auroc_error`.

    The precision of a bin's pixels lies between those of two orders: anomalous ones first, or normal ones first.
    """
    error, anomalous = np.float64(0), np.float64(0)
    for group in groups:
        all_true = group.anomalous_above + group.anomalous
        first_true = group.anomalous_above + np.minimum(group.anomalous, 1)
        best = all_true / np.maximum(all_true + group.normal_above, 1)
        worst = first_true / np.maximum(first_true + group.normal_above + group.normal_tied, 1)
        error = error + (group.anomalous * (best - worst)).sum(axis=-1)
        anomalous = anomalous + group.anomalous.sum(axis=-1)
    return np.asarray(_ratio(error, anomalous))


def aupro_error(groups: Iterable[TiedGroups], n_normal: Count, fpr_limit: float) -> FloatArray:
    """Bound for :func:`aupro`, as :func:`auroc_error`; the bin in which the limit lies counts up to the limit."""
    error, regions = np.float64(0), np.float64(0)
    for group in groups:
        risen = _risen(group, n_normal, fpr_limit)
        # The pixel rises somewhere in the bin: at its beginning at the earliest, at its end at the latest.
        earliest = np.maximum(fpr_limit - _rate(group.normal_above, n_normal), 0)
        latest = np.maximum(fpr_limit - _rate(group.normal_above + group.normal_tied, n_normal), 0)
        error = error + (_shares(group) * np.maximum(earliest - risen, risen - latest)).sum(axis=-1)
        regions = regions + _shares(group).sum(axis=-1)
    return np.asarray(_ratio(error, regions) / fpr_limit)


def _risen(group: TiedGroups, n_normal: Count, limit: float) -> FloatArray:
    """Area from 0 to the limit under a line that rises from 0 to 1 between ``x0`` and ``x1``."""
    start = _rate(group.normal_above, n_normal)
    width = _rate(group.normal_tied, n_normal)
    inside = np.clip(limit - start, 0, width)
    beyond = np.maximum(limit - start - width, 0)
    return np.asarray(0.5 * inside * _ratio(inside, width, otherwise=0.0) + beyond)


def _shares(group: TiedGroups) -> FloatArray:
    if group.share is None:
        raise ValueError("AUPRO needs the regions' areas, which were not given.")
    return group.share


def _rate(count: npt.NDArray[Any], n_normal: Count) -> FloatArray:
    """Counts (..., groups) over totals (...)."""
    return _ratio(count, np.asarray(n_normal)[..., None])


def _ratio(part: Any, whole: Any, otherwise: float = np.nan) -> FloatArray:
    """``part / whole``, ``otherwise`` where the whole is 0."""
    whole = np.asarray(whole, dtype=np.float64)
    known = whole > 0
    return np.where(known, part / np.where(known, whole, 1), otherwise)
