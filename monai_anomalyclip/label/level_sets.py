# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""An anomaly map as nested labels, for viewers that show labels but no map."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from monai.config.type_definitions import NdarrayOrTensor
from monai.utils.type_conversion import convert_to_dst_type, convert_to_tensor
from torch import Tensor

__all__ = ["LEVELS", "level_names", "level_set_labels"]

LEVELS = (0.5, 0.75, 0.9)
"""Where the labels begin, by default."""


def level_names(levels: Sequence[float] = LEVELS) -> dict[str, int]:
    """Names of the labels and their values: ``{"anomaly_0.50": 1, ...}``.

    Raises:
        ValueError: as for :func:`level_set_labels`.
    """
    return {f"anomaly_{level:.2f}": value for value, level in enumerate(_checked(levels), start=1)}


def level_set_labels(anomaly_map: NdarrayOrTensor, levels: Sequence[float] = LEVELS) -> NdarrayOrTensor:
    """Label each voxel with the number of levels that its probability reaches.

    Args:
        anomaly_map: probabilities in [0, 1], any shape.
        levels: ascending, in (0, 1].

    Returns:
        uint8 labels of the map's shape, container type and metadata: 0 below the first level, 1 from it on, and so on.

    Raises:
        ValueError: the map holds NaN, or the levels are not ascending numbers in (0, 1] with two decimals at most.
    """
    values: Tensor = convert_to_tensor(anomaly_map, track_meta=False)
    if values.isnan().any():
        raise ValueError("The anomaly map holds NaN: labels made from it would call those voxels normal.")
    reached = torch.zeros(values.shape, dtype=torch.uint8)
    for level in _checked(levels):
        reached += (values >= level).to(torch.uint8)
    result: NdarrayOrTensor = convert_to_dst_type(reached, anomaly_map, dtype=torch.uint8)[0]
    return result


def _checked(levels: Sequence[float]) -> list[float]:
    numbers = [float(level) for level in levels]
    ascending = all(low < high for low, high in pairwise(numbers))
    nameable = all(0 < level <= 1 and round(level, 2) == level for level in numbers)
    if not (numbers and ascending and nameable):
        raise ValueError(f"Levels must be ascending numbers in (0, 1] with two decimals at most, got {list(levels)}.")
    return numbers
