# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
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
