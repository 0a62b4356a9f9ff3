# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from monai_anomalyclip.archive.left_out import LeftOut


def test_what_is_noted_stays(tmp_path: Path) -> None:
    path = tmp_path / "state" / "left_out.jsonl"
    left = LeftOut(path)
    assert left.reason("a") is None
    left.note("a", "nothing to score")
    left.note("b", "failed")
    assert path.stat().st_mode & 0o777 == 0o600
    with path.open("a") as stream:
        stream.write('{"key": "c", "rea')  # the power failed
    read = LeftOut(path)
    assert [read.reason(key) for key in "abc"] == ["nothing to score", "failed", None]
    path.write_text("my notes")
    with pytest.raises(ValueError, match=r"'left_out\.jsonl' is not a list"):
        LeftOut(path)
