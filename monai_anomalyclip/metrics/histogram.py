# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Pixel scores counted in bins of constant relative width: constant memory, whatever the number of images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from monai_anomalyclip.metrics.ranking import TiedGroups, from_ordered_bits, to_ordered_bits

__all__ = ["DEFAULT_BINS", "ScoreHistogram"]

DEFAULT_BINS = 2**20
_FEWEST, _MOST = 2**16, 2**24


class ScoreHistogram:
    """Counts of normal and of anomalous pixels, and the anomalous ones' shares of their regions, per bin.

    A bin holds the float32 numbers with the same upper bits, so no range has to be known: 2**20 bins divide every
    doubling of the score into 2048 bins (a relative width below 0.0005), 2**16 bins into 128.

    Args:
        normal: counts of normal pixels, (bins,) int64; added to in place, like the others.
        anomalous: counts of anomalous pixels, (bins,) int64.
        share: sums of 1 / (area of the pixel's region), (bins,) float64, or None.
    """

    def __init__(
        self,
        normal: npt.NDArray[np.int64],
        anomalous: npt.NDArray[np.int64],
        share: npt.NDArray[np.float64] | None = None,
    ) -> None:
        self.normal = normal
        self.anomalous = anomalous
        self.share = share
        self._shift = np.uint32(32 - check_bins(len(normal)))

    def add(
        self,
        normal: npt.NDArray[np.float32],
        anomalous: npt.NDArray[np.float32],
        area: npt.NDArray[np.int32] | None = None,
    ) -> None:
        """Count pixels; the arrays are those of :class:`~monai_anomalyclip.metrics.ranking.Ranking`."""
        np.add.at(self.normal, self._bins(normal), 1)
        bins = self._bins(anomalous)
        np.add.at(self.anomalous, bins, 1)
        if self.share is not None and area is not None:
            np.add.at(self.share, bins, 1 / area.astype(np.float64))

    @property
    def n_normal(self) -> int:
        return int(self.normal.sum())

    @property
    def n_anomalous(self) -> int:
        return int(self.anomalous.sum())

    @property
    def finite(self) -> bool:
        lowest, highest = self._bins(np.array([-1, 1], np.float32) * np.finfo(np.float32).max)
        outside = [
            counts[part]
            for counts in (self.normal, self.anomalous)
            for part in (slice(lowest), slice(highest + 1, None))
        ]
        return not any(bool(part.any()) for part in outside)

    def groups(self) -> Iterator[TiedGroups]:
        used = np.flatnonzero(self.anomalous)[::-1]
        normal, anomalous = self.normal[used], self.anomalous[used]
        yield TiedGroups(
            from_ordered_bits(used.astype(np.uint32) << self._shift),
            self.n_normal - np.cumsum(self.normal)[used],
            normal,
            np.cumsum(anomalous) - anomalous,
            anomalous,
            None if self.share is None else self.share[used],
        )

    def _bins(self, scores: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        return (to_ordered_bits(scores) >> self._shift).astype(np.int64)


def check_bins(bins: int) -> int:
    """Return how many bits number so many bins.

    Raises:
        ValueError: not a power of two from 2**16 to 2**24.
    """
    bits = int(bins).bit_length() - 1
    if bins != 2**bits or not _FEWEST <= bins <= _MOST:
        raise ValueError(f"A histogram has 2**16 to 2**24 bins, and a power of two of them, not {bins}.")
    return bits
