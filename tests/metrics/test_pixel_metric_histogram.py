# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from monai_anomalyclip.metrics.pixel_metric import ScoreHistogram, check_bins

LARGEST = np.finfo(np.float32).max


def empty(bins: int = 2**16) -> ScoreHistogram:
    return ScoreHistogram(np.zeros(bins, np.int64), np.zeros(bins, np.int64), np.zeros(bins))


def test_counts_add_up() -> None:
    random = np.random.default_rng(0)
    histogram = empty()
    total = 0.0
    for size in (5, 0, 100):
        area = random.integers(1, 9, size).astype(np.int32)
        histogram.add(random.normal(size=2 * size).astype(np.float32), random.random(size).astype(np.float32), area)
        total += (1 / area).sum()
    assert (histogram.n_normal, histogram.n_anomalous) == (210, 105)
    assert histogram.share is not None
    assert histogram.share.sum() == pytest.approx(total)


@pytest.mark.parametrize("bits", [16, 20, 24])
def test_width_of_the_bins(bits: int) -> None:
    """Numbers in one bin differ by less than the stated relative width, and bins keep the order."""
    random = np.random.default_rng(1)
    scores = np.sort(random.uniform(0.01, 8, 20000)).astype(np.float32)
    histogram = empty(2**bits)
    histogram.add(np.array([1.0], np.float32), scores, np.ones(len(scores), np.int32))
    (groups,) = histogram.groups()
    assert (np.diff(groups.score) < 0).all()
    assert groups.anomalous.sum() == len(scores)
    # Bins keep the order, so the k-th lowest score lies in the bin of the k-th lowest pixel.
    edge = np.repeat(groups.score, groups.anomalous).astype(np.float64)[::-1]
    assert (scores >= edge).all()
    assert (scores / edge - 1 < 2.0 ** (9 - bits)).all()  # 8 bits are the exponent, one the sign
    assert (scores / edge - 1).max() > 0.4 * 2.0 ** (9 - bits)


def test_negative_scores_and_zero() -> None:
    histogram = empty()
    scores = np.array([-2.0, -1.0, -0.0, 0.0, 1.0], np.float32)
    histogram.add(scores, scores, np.ones(5, np.int32))
    (groups,) = histogram.groups()
    assert groups.anomalous.tolist() == [1, 2, 1, 1]
    assert groups.normal_above.tolist() == [0, 1, 3, 4]
    assert groups.normal_tied.tolist() == [1, 2, 1, 1]
    assert groups.anomalous_above.tolist() == [0, 1, 3, 4]


@pytest.mark.parametrize("bins", [2**16, 2**20])
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_finite(bins: int, value: float) -> None:
    extremes = np.array([-LARGEST, 0, 1e-45, LARGEST], np.float32)
    for normal, anomalous in ((extremes, [value]), ([value], extremes)):
        histogram = empty(bins)
        histogram.add(extremes, extremes, np.ones(4, np.int32))
        assert histogram.finite
        areas = np.ones(len(anomalous), np.int32)
        histogram.add(np.array(normal, np.float32), np.array(anomalous, np.float32), areas)
        assert not histogram.finite


@pytest.mark.parametrize("bins", [0, 2**15, 2**25, 100_000, 2**16 + 1])
def test_number_of_bins(bins: int) -> None:
    with pytest.raises(ValueError, match=rf"power of two of them, not {bins}"):
        check_bins(bins)
    assert check_bins(2**17) == 17
