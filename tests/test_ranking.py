# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools

import numpy as np
import pytest

from monai_anomalyclip.ranking import most_suspicious_first


def test_score_then_margin_then_map_then_area_then_place() -> None:
    """All rows of zeros and ones, shuffled: the order is that of the rows as binary numbers, highest first."""
    rows = np.array(list(itertools.product((0.0, 1.0), repeat=4)))
    shuffled = np.random.default_rng(0).permutation(16)
    order = most_suspicious_first(*rows[shuffled].T)
    assert [int(shuffled[index]) for index in order] == list(range(15, -1, -1))
    assert most_suspicious_first([0.5] * 4, [1.0] * 4) == [0, 1, 2, 3]


def test_saturated_scores_are_told_apart() -> None:
    margins = np.array([18.0, 40.0, 31.5], np.float64)
    scores = (1 / (1 + np.exp(-margins))).astype(np.float32)
    assert len(set(scores.tolist())) == 1
    assert most_suspicious_first(scores, margins) == [1, 2, 0]


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_what_has_no_value_comes_last(nothing: float | None) -> None:
    assert most_suspicious_first([0.1, nothing, 0.9]) == [2, 0, 1]
    assert most_suspicious_first([0.5] * 3, [nothing, -3.0, nothing], [0.1, 0.0, 0.2]) == [1, 2, 0]
    assert most_suspicious_first([]) == []
