# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The numbers that a map, a mask and scores come to: per slice, and for the whole input."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from monai_anomalyclip.writers.record import Peak

__all__ = ["Findings"]

_PEAKS = 6  # most suspicious slices that a record names


@dataclass(frozen=True)
class Findings:
    """What was found in the slices or frames of one input, all of one size.

    Args:
        scores: (n,) anomaly score of each.
        map_max: (n,) highest value of each map.
        area_fraction: (n,) share of each mask that is anomalous.
    """

    scores: npt.NDArray[np.float64]
    map_max: npt.NDArray[np.float64]
    area_fraction: npt.NDArray[np.float64]

    @classmethod
    def of(
        cls, scores: npt.NDArray[np.floating], maps: npt.NDArray[np.floating], masks: npt.NDArray[np.bool_]
    ) -> Findings:
        """Take the numbers.

        Args:
            scores: (n,).
            maps: (n, H, W) in [0, 1].
            masks: (n, H, W), True where anomalous.
        """
        return cls(
            np.asarray(scores, dtype=np.float64),
            maps.max(axis=(1, 2)).astype(np.float64),
            masks.mean(axis=(1, 2), dtype=np.float64),
        )

    def followed_by(self, later: Findings) -> Findings:
        """The findings of two parts of a film, one after the other."""
        return Findings(
            np.concatenate([self.scores, later.scores]),
            np.concatenate([self.map_max, later.map_max]),
            np.concatenate([self.area_fraction, later.area_fraction]),
        )

    @property
    def anomaly_score(self) -> float:
        """Score of the whole input: the highest."""
        return float(self.scores.max())

    @property
    def anomalous_fraction(self) -> float:
        """Share of all pixels that is anomalous."""
        return float(self.area_fraction.mean())

    def peaks(self) -> list[Peak]:
        """The slices of the highest scores, highest first; among equal ones those of the highest map value."""
        order = np.lexsort((-self.map_max, -self.scores))[:_PEAKS]
        return [{"index": int(index), "score": float(self.scores[index])} for index in order]

    def volume_ml(self, voxel_mm3: float | None, pixels: int) -> float | None:
        """Anomalous volume in millilitres; None when the size of a voxel is unknown.

        Args:
            voxel_mm3: size of a voxel in cubic millimetres.
            pixels: number of pixels of a slice.
        """
        return None if voxel_mm3 is None else float(self.area_fraction.sum()) * pixels * voxel_mm3 / 1000
