# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from monai_anomalyclip.cli import main
from monai_anomalyclip.cli.template import _KINDS
from monai_anomalyclip.scale.templates import KINDS


def test_the_command_writes_every_kind_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert KINDS == _KINDS
    for kind in KINDS:
        words = ["template", kind, "-o", str(tmp_path / kind), "--list", "/data/w.jsonl", "--results", "/data/out"]
        assert main([*words, "--parts", "4"]) == 0
        assert "/data/w.jsonl" in (tmp_path / kind).read_text()
        assert main(words) == 1  # it exists
        assert main([*words, "--force"]) == 0
    assert main(["template", "slurm", "-o", str(tmp_path / "x"), "--list", "a'b", "--results", "out"]) == 1
    assert "cannot stand in a template" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
