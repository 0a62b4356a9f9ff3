# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np

from monai_anomalyclip.demo.textures import random_point


def test_a_point_lies_in_its_region_and_in_the_middle_of_none() -> None:
    rng = np.random.default_rng(0)
    region = np.zeros((4, 8), bool)
    region[1, 6] = True
    assert random_point(rng, region) == ((1 + 0.5) / 4, (6 + 0.5) / 8)
    assert random_point(rng, np.zeros((4, 8), bool)) == (0.5, 0.5)
