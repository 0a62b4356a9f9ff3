# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

Script = Callable[[str], ModuleType]


def test_table_and_exit_status(
    script: Script, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With programs whose times are given: 1 s for the yardstick, and 4 or 4.5 times that for `inspect`."""
    benchmark = script("start_up")
    monkeypatch.setattr(sys, "argv", ["start_up.py", "--repeats", "1"])
    monkeypatch.setattr(benchmark, "prepare", lambda folder: None)
    for factor, status in ((4.0, 0), (4.5, 1)):
        took = {"inspect": factor, "import numpy, pydicom": 1.0}

        def seconds(command: list[str], folder: Path, took: dict[str, float] = took) -> tuple[float, float]:
            return next((2 * took[word], took[word]) for word in [*command, "inspect"] if word in took)

        monkeypatch.setattr(benchmark, "seconds", seconds)
        assert benchmark.main() == status
        shown = capsys.readouterr().out
        assert f"| inspect, 20 slices | {2 * factor:.2f} | {factor:.2f} | {factor:.2f} | {factor:.2f} |" in shown


def test_inputs_and_a_command(script: Script, tmp_path: Path) -> None:
    benchmark = script("start_up")
    benchmark.prepare(tmp_path)
    assert len(list((tmp_path / "study").iterdir())) == 20
    wall, cpu = benchmark.seconds([sys.executable, "-c", "sum(range(3_000_000))"], tmp_path)
    assert wall > 0
    assert cpu > 0
    with pytest.raises(RuntimeError, match="failed: oh"):
        benchmark.seconds([sys.executable, "-c", "import sys; sys.stderr.write('oh'); sys.exit(3)"], tmp_path)
