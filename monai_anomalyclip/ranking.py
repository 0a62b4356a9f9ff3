# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The one order of suspicion, for slices, frames and whole inputs, wherever they are listed or shown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["most_suspicious_first"]

Values = Sequence[float | None] | npt.NDArray[np.floating]


def most_suspicious_first(
    scores: Values, margins: Values | None = None, map_max: Values | None = None, area: Values | None = None
) -> list[int]:
    """Put slices, frames or inputs in order, the most suspicious first.

    The score counts first. Many scores round to 1; among equal ones the margin of the logits, which the score is made
    from, counts, then the highest value of the map, then the anomalous area, and last the place in the list.

    Args:
        scores: (n,) anomaly scores.
        margins: (n,) abnormal minus normal logit; None where a network has none.
        map_max: (n,) highest values of the maps.
        area: (n,) anomalous area or share.

    Returns:
        n indices. What has no value (None or NaN) comes after all that have one.

    Example:
        >>> most_suspicious_first([0.2, 1.0, 1.0], [-1.4, 18.0, 21.0])
        [2, 1, 0]
    """
    keys = [_descending(values) for values in (area, map_max, margins, scores) if values is not None]
    return [int(index) for index in np.lexsort(keys)]


def _descending(values: Values) -> npt.NDArray[np.float64]:
    numbers = np.asarray([np.nan if value is None else value for value in values], dtype=np.float64)
    return np.where(np.isnan(numbers), np.inf, -numbers)
