# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from monai_anomalyclip.cli import main


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--part", "0/4", "studies"], "Part 0 of 4 does not exist"),
        (["--part", "4", "studies"], "A part is written K/N"),
        (["--part", "auto", "studies"], "finds no RANK"),
        ([], "give INPUT, or --list FILE"),
        (["studies", "--list", "work.jsonl"], "INPUT and --list"),
        (["--list", "work.jsonl", "--series", "1.2", "--keep-names"], "--series, --keep-names and --list"),
    ],
)
def test_wrong_usage_is_status_2(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit) as left:
        main(["predict", *words, "-o", str(tmp_path / "out")])
    assert left.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
