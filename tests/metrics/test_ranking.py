# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_anomalyclip.metrics import ranking
from monai_anomalyclip.metrics.ranking import Ranking, TiedGroups, from_ordered_bits, to_ordered_bits


def scores(levels: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    normal, anomalous = (
        random.integers(-levels, levels, 300) / levels,
        random.integers(-levels, levels + 2, 90) / levels,
    )
    return normal.astype(np.float32), anomalous.astype(np.float32), random.integers(1, 50, 90).astype(np.int32)


def joined(groups: list[TiedGroups]) -> dict[str, np.ndarray]:
    names = ("score", "normal_above", "normal_tied", "anomalous_above", "anomalous", "share")
    return {name: np.concatenate([getattr(group, name) for group in groups]) for name in names}


@pytest.mark.parametrize("levels", [1, 7, 10**6])
@pytest.mark.parametrize("chunk", [1, 8, 2**20])
def test_counts_of_every_group(levels: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "_CHUNK", chunk)
    normal, anomalous, area = scores(levels)
    groups = list(Ranking(normal.copy(), anomalous.copy(), area).groups())
    assert (len(groups) > 1) == (chunk < 90)
    found = joined(groups)
    assert found["score"].tolist() == sorted(set(anomalous.tolist()), reverse=True)
    for index, score in enumerate(found["score"]):
        assert found["normal_above"][index] == (normal > score).sum()
        assert found["normal_tied"][index] == (normal == score).sum()
        assert found["anomalous_above"][index] == (anomalous > score).sum()
        assert found["anomalous"][index] == (anomalous == score).sum()
        assert found["share"][index] == pytest.approx((1 / area[anomalous == score]).sum(), rel=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_without_areas(dtype: type) -> None:
    normal, anomalous, area = scores(7)
    (with_areas,) = Ranking(normal.copy(), anomalous.copy(), area).groups()
    (without,) = Ranking(normal.astype(dtype), anomalous.astype(dtype)).groups()
    assert without.share is None
    with pytest.raises(ValueError, match="AUPRO needs the regions' areas, which were not given"):
        ranking.aupro([without], len(normal), 0.3)
    for name in ("score", "normal_above", "normal_tied", "anomalous_above", "anomalous"):
        np.testing.assert_array_equal(getattr(without, name), getattr(with_areas, name))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [0, 1])
@pytest.mark.parametrize("areas", [True, False])
def test_finite(value: float, where: int, areas: bool) -> None:
    normal, anomalous, area = scores(7)
    assert Ranking(normal.copy(), anomalous.copy(), area if areas else None).finite
    (normal, anomalous)[where][11] = value
    assert not Ranking(normal, anomalous, area if areas else None).finite


def test_nothing_anomalous() -> None:
    ranking_of_none = Ranking(np.ones(3, np.float32), np.empty(0, np.float32), np.empty(0, np.int32))
    assert ranking_of_none.n_anomalous == 0
    assert ranking_of_none.finite
    assert list(ranking_of_none.groups()) == []


SPECIAL = [-np.inf, -3.4028235e38, -1.5, -1e-45, 0.0, 1e-45, 1.1754944e-38, 0.5, 1.0, 3.4028235e38, np.inf]


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=2, max_size=50))
def test_order_of_the_numbers(values: list[float]) -> None:
    numbers = np.array(values, dtype=np.float32)
    ordered = to_ordered_bits(numbers)
    for other in (-1, 1):
        shifted = np.roll(numbers, other)
        assert ((numbers < shifted) == (ordered < np.roll(ordered, other))).all()
        assert ((numbers == shifted) == (ordered == np.roll(ordered, other))).all()


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=50))
def test_there_and_back(values: list[float]) -> None:
    numbers = np.array(values, dtype=np.float32)
    np.testing.assert_array_equal(from_ordered_bits(to_ordered_bits(numbers)), numbers)


def test_special_numbers_rise() -> None:
    ordered = to_ordered_bits(np.array(SPECIAL, dtype=np.float32))
    assert (np.diff(ordered.astype(np.int64)) > 0).all()


def test_both_zeros_are_one() -> None:
    zeros = to_ordered_bits(np.array([0.0, -0.0], dtype=np.float32))
    assert zeros[0] == zeros[1]


def test_input_is_left_alone() -> None:
    numbers = np.array([-1.0, 2.0], dtype=np.float32)
    to_ordered_bits(numbers)
    np.testing.assert_array_equal(numbers, [-1.0, 2.0])
