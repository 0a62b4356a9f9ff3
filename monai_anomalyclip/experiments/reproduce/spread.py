# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Several seeds in one number, and how far they lie apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Spread", "mean_over_sets"]


@dataclass(frozen=True)
class Spread:
    """Mean and range of a value over seeds.

    Args:
        seeds: the value by seed, in per cent; undefined ones left out.
    """

    seeds: Mapping[int, float]

    @classmethod
    def of_fractions(cls, values: Mapping[int, float]) -> Spread | None:
        """From fractions by seed, NaN where undefined; None when none is defined."""
        defined = {seed: 100 * value for seed, value in values.items() if not math.isnan(value)}
        return cls(defined) if defined else None

    @property
    def mean(self) -> float:
        return math.fsum(self.seeds.values()) / len(self.seeds)

    @property
    def low(self) -> float:
        return min(self.seeds.values())

    @property
    def high(self) -> float:
        return max(self.seeds.values())


def mean_over_sets(spreads: Sequence[Spread | None]) -> Spread | None:
    """Mean over data sets, seed by seed.

    Args:
        spreads: of one metric, one per data set; None where the metric is undefined on it: left out.

    Returns:
        over the seeds that all data sets have; None when there is none.
    """
    defined = [spread.seeds for spread in spreads if spread is not None]
    if not defined:
        return None
    common = [seed for seed in defined[0] if all(seed in seeds for seeds in defined)]
    means = {seed: math.fsum(seeds[seed] for seeds in defined) / len(defined) for seed in common}
    return Spread(means) if means else None
