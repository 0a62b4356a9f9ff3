# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

Script = Callable[[str], ModuleType]


def test_one_number(script: Script) -> None:
    row = script("reference_scale").measure(6, quick=True)
    assert row["images"] == 6
    assert row["file_mib"] > 1  # six images of 324 patches of 472 numbers
    assert row["peak_mib"] >= row["before_mib"]
