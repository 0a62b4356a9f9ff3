# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from monai_anomalyclip.cli.left_out import damaged_files


@pytest.mark.parametrize(
    ("left_out", "count"),
    [
        ({}, 0),
        ({"damaged header": 2, "not DICOM": 3}, 2),
        ({"unreadable": 1, "header too large": 1, "deflated too large": 1, "too large": 1}, 4),
        (
            {"localizer series": 1, "segmentation": 4, "no image": 1, "duplicate file": 1, "link out of the folder": 1},
            0,
        ),
    ],
)
def test_what_is_damaged(left_out: dict[str, int], count: int) -> None:
    assert damaged_files(left_out) == count
