# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest

from monai_anomalyclip.experiments.reproduce.experiment import Spread, mean_over_sets


def test_mean_and_range_in_per_cent() -> None:
    values = {111: 0.951, 112: 0.9, 113: 0.96}
    spread = Spread.of_fractions(values)
    assert spread is not None
    assert spread.mean == pytest.approx(100 * np.mean(list(values.values())))
    assert (spread.low, spread.high) == pytest.approx((90.0, 96.0))


def test_undefined_values_are_left_out() -> None:
    spread = Spread.of_fractions({111: math.nan, 112: 0.5})
    assert spread is not None
    assert spread.seeds == {112: 50.0}
    assert Spread.of_fractions({111: math.nan}) is None
    assert Spread.of_fractions({}) is None


def test_mean_over_sets_is_per_seed() -> None:
    first, second = Spread({111: 10.0, 112: 30.0}), Spread({111: 50.0, 112: 40.0})
    mean = mean_over_sets([first, None, second])
    assert mean is not None
    assert mean.seeds == {111: 30.0, 112: 35.0}
    assert (mean.mean, mean.low, mean.high) == (32.5, 30.0, 35.0)


def test_mean_over_sets_takes_the_seeds_of_all() -> None:
    mean = mean_over_sets([Spread({111: 10.0, 112: 30.0}), Spread({112: 40.0})])
    assert mean is not None
    assert mean.seeds == {112: 35.0}
    assert mean_over_sets([Spread({111: 10.0}), Spread({112: 40.0})]) is None
    assert mean_over_sets([None]) is None
