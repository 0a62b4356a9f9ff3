# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What pixel metrics need to know of millions of scores: how many normal ones lie above each anomalous one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["Ranked", "Ranking", "TiedGroups", "from_ordered_bits", "to_ordered_bits"]

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
