# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from monai_anomalyclip.metrics.ordered_bits import from_ordered_bits, to_ordered_bits

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
