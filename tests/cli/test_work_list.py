# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from monai_anomalyclip.cli import main
from monai_anomalyclip.data.work_list import read_work_list


def test_what_is_found_and_left_out(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (study / "1.2.840" / "cut.dcm").write_bytes(next((study / "1.2.840").glob("*.dcm")).read_bytes()[:300])
    path = tmp_path / "work.jsonl"
    assert main(["list", str(study), "-o", str(path), "--exclude", "us"]) == 3  # a file is damaged
    shown = capsys.readouterr().out
    assert "left out: 1 x localizer series" in shown
    assert "left out: 1 x damaged header" in shown
    assert "QUIMBY" not in shown
    header, units = read_work_list(path)
    names = [name for unit in units for name in unit.names.values()]
    assert (header.inputs, len(names)) == (len(set(names)), len(names))
    assert header.left_out["excluded"] == 1
    assert main(["list", str(tmp_path / "absent"), "-o", str(path)]) == 1
