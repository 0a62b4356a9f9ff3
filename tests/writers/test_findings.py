# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from monai_anomalyclip.writers.findings import Findings

RNG = np.random.default_rng(0)


def test_numbers_per_slice() -> None:
    maps = RNG.random((5, 6, 7)).astype(np.float32)
    masks = maps >= 0.7
    scores = RNG.random(5).astype(np.float32)
    findings = Findings.of(scores, maps, masks)
    for index in range(5):
        values = [float(value) for row in maps[index] for value in row]
        assert findings.map_max[index] == max(values)
        assert findings.area_fraction[index] == pytest.approx(sum(value >= np.float32(0.7) for value in values) / 42)
    assert findings.scores.dtype == np.float64
    assert findings.anomaly_score == float(max(scores))
    assert findings.anomalous_fraction == pytest.approx(masks.sum() / masks.size)


def test_parts_of_a_film_follow_each_other() -> None:
    maps = RNG.random((9, 4, 4)).astype(np.float32)
    scores = RNG.random(9)
    whole = Findings.of(scores, maps, maps > 0.5)
    parts = [Findings.of(scores[part], maps[part], maps[part] > 0.5) for part in (slice(4), slice(4, 5), slice(5, 9))]
    joined = parts[0].followed_by(parts[1]).followed_by(parts[2])
    for name in ("scores", "map_max", "area_fraction"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name))


def test_peaks_are_the_highest_scores_and_then_the_highest_maps() -> None:
    scores = np.array([0.1, 0.9, 0.5, 0.9, 0.2, 0.9, 0.3, 0.4])
    map_max = np.array([0.1, 0.2, 0.9, 0.6, 0.1, 0.4, 0.1, 0.1])
    peaks = Findings(scores, map_max, np.zeros(8)).peaks()
    assert [peak["index"] for peak in peaks] == [3, 5, 1, 2, 7, 6]
    assert [peak["score"] for peak in peaks] == [0.9, 0.9, 0.9, 0.5, 0.4, 0.3]
    assert len(Findings(scores[:2], map_max[:2], np.zeros(2)).peaks()) == 2


def test_volume_in_millilitres() -> None:
    masks = np.zeros((10, 20, 30), bool)
    masks[2:5, 4:10, 3:8] = True  # 90 voxels of 0.5 x 0.5 x 4 mm
    findings = Findings.of(np.zeros(10), masks.astype(np.float32), masks)
    assert findings.volume_ml(0.5 * 0.5 * 4, 600) == pytest.approx(0.09)
    assert findings.volume_ml(None, 600) is None
