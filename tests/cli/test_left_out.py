# Copyright (c) monai_anomalyclip authors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
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
