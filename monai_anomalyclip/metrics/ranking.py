# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Millions of scores in order: how many normal ones lie above each anomalous one, and the areas that follow from it.

Every anomalous pixel adds its own part to each of the areas, so that none of the curves has to be drawn: with ``x0``
the share of normal pixels above its score and ``x1`` the share at or above it, ROC and PRO rise by the pixel's weight
along the straight line from ``x0`` to ``x1``. This is the trapezoidal rule over every distinct score.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

__all__ = [
    "Ranked",
    "Ranking",
    "TiedGroups",
    "aupro",
    "aupro_error",
    "auroc",
    "auroc_error",
    "average_precision",
    "average_precision_error",
    "from_ordered_bits",
    "to_ordered_bits",
]

_SIGN = np.uint32(1 << 31)
_ALL = np.uint32(2**32 - 1)


def to_ordered_bits(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint32]:
    """Map float32 to uint32 so that ``a < b`` holds for the numbers exactly when it holds for the integers.

    The integers are the IEEE 754 bits with the sign bit flipped (positive numbers) or with all bits flipped (negative
    ones); both zeros become one. The upper bits are therefore a bin number of constant relative width.
    """
    # Adding zero copies, and turns -0 into +0.
    bits: npt.NDArray[np.uint32] = (values + np.float32(0)).view(np.uint32)
    negative = bits >> np.uint32(31)
    bits ^= negative * (_ALL ^ _SIGN) + _SIGN
    return bits


def from_ordered_bits(ordered: npt.NDArray[np.uint32]) -> npt.NDArray[np.float32]:
    """Undo :func:`to_ordered_bits`."""
    negative = np.uint32(1) - (ordered >> np.uint32(31))
    return (ordered ^ (negative * (_ALL ^ _SIGN) + _SIGN)).view(np.float32)


FloatArray = npt.NDArray[np.float64]
_CHUNK = 2**18  # anomalous pixels at a time, so that what is computed per pixel takes little memory
_HALF = np.uint64(32)


@dataclass(frozen=True)
class TiedGroups:
    """Anomalous pixels in groups that cannot be told apart, highest score first; every array is (..., groups).

    Attributes:
        score: of the group (in a histogram: the lower edge of its bin).
        normal_above: number of normal pixels with a higher score.
        normal_tied: number of normal pixels with this score.
        anomalous_above: number of anomalous pixels with a higher score.
        anomalous: number of anomalous pixels in the group.
        share: sum over the group of 1 / (area of the pixel's region); None when regions were not labelled.
    """

    score: npt.NDArray[np.floating[Any]]
    normal_above: npt.NDArray[Any]
    normal_tied: npt.NDArray[Any]
    anomalous_above: npt.NDArray[Any]
    anomalous: npt.NDArray[Any]
    share: FloatArray | None


class Ranked(Protocol):
    """Pixels in order of their scores: all of them (:class:`Ranking`), or a histogram."""

    @property
    def n_normal(self) -> int: ...

    @property
    def n_anomalous(self) -> int: ...

    @property
    def finite(self) -> bool:
        """Whether no score is NaN or infinite."""
        ...

    def groups(self) -> Iterator[TiedGroups]:
        """All groups that hold anomalous pixels, highest first, some at a time."""
        ...


class Ranking:
    """Every score, sorted.

    Normal scores are sorted as plain numbers. Of anomalous ones, score and area are packed into one integer first, so
    that they need no index to stay together.

    Args:
        normal: scores of the normal pixels (or images), (n,) float32 or float64; sorted in place.
        anomalous: scores of the anomalous ones, (m,) of the same type; sorted in place without ``area``.
        area: area of the region of each anomalous pixel, (m,) int32, for scores in float32; or None.
    """

    def __init__(
        self,
        normal: npt.NDArray[np.floating[Any]],
        anomalous: npt.NDArray[np.floating[Any]],
        area: npt.NDArray[np.int32] | None = None,
    ) -> None:
        normal.sort()
        if area is None:
            anomalous.sort()
            self._sorted: npt.NDArray[Any] = anomalous
        else:
            self._sorted = np.empty(len(anomalous), np.uint64)
            for start in range(0, len(anomalous), _CHUNK):
                part = slice(start, start + _CHUNK)
                self._sorted[part] = to_ordered_bits(anomalous[part])
                self._sorted[part] <<= _HALF
                self._sorted[part] |= area[part].view(np.uint32)
            self._sorted.sort()
        self.normal = normal
        self._has_area = area is not None

    @property
    def n_normal(self) -> int:
        return len(self.normal)

    @property
    def n_anomalous(self) -> int:
        return len(self._sorted)

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(self._ends()).all())

    @property
    def extremes(self) -> tuple[np.floating[Any], np.floating[Any]]:
        """The lowest and the highest of all scores."""
        ends = self._ends()
        return ends.min(), ends.max()

    def groups(self) -> Iterator[TiedGroups]:
        end = self.n_anomalous
        while end:
            start = self._start_of_tie(max(0, end - _CHUNK))
            scores = self._scores(slice(start, end))
            first = np.flatnonzero(np.concatenate([[True], scores[1:] != scores[:-1]]))
            anomalous = np.diff(first, append=len(scores))
            score = scores[first]
            below = np.searchsorted(self.normal, score, side="left")
            up_to = np.searchsorted(self.normal, score, side="right")
            share = None
            if self._has_area:
                area = self._sorted[start:end].astype(np.uint32)  # drops the upper half
                share = np.add.reduceat(1 / area.astype(np.float64), first)[::-1]
            yield TiedGroups(
                score[::-1],
                (self.n_normal - up_to)[::-1],
                (up_to - below)[::-1],
                (self.n_anomalous - start - first - anomalous)[::-1],
                anomalous[::-1],
                share,
            )
            end = start

    def _ends(self) -> npt.NDArray[np.floating[Any]]:
        """The first and last scores, which NaN and infinity would be among."""
        ends = [self.normal[:1], self.normal[-1:], self._scores(slice(0, 1)), self._scores(slice(-1, None))]
        return np.concatenate(ends)

    def _scores(self, which: slice) -> npt.NDArray[np.floating[Any]]:
        part = self._sorted[which]
        return from_ordered_bits((part >> _HALF).astype(np.uint32)) if self._has_area else part

    def _start_of_tie(self, index: int) -> int:
        """Index of the first pixel with the score of this one."""
        value = self._sorted[index]
        if self._has_area:
            value = (value >> _HALF) << _HALF
        return int(np.searchsorted(self._sorted, value, side="left"))


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
