# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

Script = Callable[[str], ModuleType]
TOY = ["--image-size", "84", "--images", "5", "--epochs", "3", "--batch-size", "2"]


def test_a_tiny_run(script: Script, thin_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [*TOY, "--model", str(thin_model), "--repeats", "2", "--json", str(tmp_path / "out.json")]
    assert script("tuning").main(options) == 0
    figures: dict[str, Any] = json.loads((tmp_path / "out.json").read_text())["figures"]
    assert set(figures["runs"]) == {"cache", "cache float16", "no cache"}
    assert figures["loss difference, no cache"] < 1e-5
    assert 0 < figures["loss difference, cache float16"] < 1e-3
    for runs in figures["runs"].values():
        assert len(runs) == 2
        assert all(len(run["losses"]) == 3 and run["losses"][2] < run["losses"][0] for run in runs)
    low, high = figures["times_faster_spread"]
    assert low <= figures["times_faster"] <= high
    assert "times faster" in capsys.readouterr().out


def test_the_full_target(script: Script, thin_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tuning = script("tuning")
    full = tuning.parse_arguments(["--full"])
    assert (full.model, full.image_size, full.images, full.epochs) == ("ViT-L-14-336-quickgelu", 518, 543, 15)
    assert tuning.main([*TOY, "--full", "--model", str(thin_model)]) == 0
    printed = capsys.readouterr().out
    assert ": met" in printed  # 20 s and more for nothing
    assert "no cache" not in printed
