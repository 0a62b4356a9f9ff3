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

from monai_anomalyclip.cli.tables import text_table


def test_columns_are_aligned_below_their_heading() -> None:
    table = text_table([("input", "n"), ("a", "10"), ("longer name", "")])
    assert table.split("\n") == ["input        n", "-----------  --", "a            10", "longer name"]


def test_heading_alone() -> None:
    assert text_table([("a", "bc")]) == "a  bc\n-  --"


def test_ragged_rows_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Rows have \[1, 2\] columns"):
        text_table([("a", "b"), ("c",)])
