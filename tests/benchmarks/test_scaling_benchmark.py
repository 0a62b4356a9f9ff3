# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

Script = Callable[[str], ModuleType]


def test_a_tiny_run(script: Script, thin_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model", str(thin_model), "--sizes", "56", "84", "--batches", "1", "2", "--slices", "1", "9"]
    options += ["--tuned", "8", "64", "--plot", str(tmp_path / "plot.png"), "--json", str(tmp_path / "out.json")]
    assert script("scaling").main(options) == 0
    figures: dict[str, Any] = json.loads((tmp_path / "out.json").read_text())["figures"]
    assert list(figures) == ["image size", "batch", "slices of a volume", "images tuned on"]
    for one in figures.values():
        assert len(one["growth"]) == 1
        assert all(0 < point["seconds_min"] <= point["seconds_max"] for point in one["points"].values())
    tuned = figures["images tuned on"]
    assert tuned["extrapolated_s"] > tuned["points"]["64"]["seconds_min"]
    assert tuned["cache_mib"] == pytest.approx(4 * 10_000 * (18 * 16 + 56 * 56) / 2**20, rel=0.01)
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.size[0] > 500
        assert "Software" not in picture.info
    assert "extrapolated" in capsys.readouterr().out


def test_growth_and_extrapolation(script: Script) -> None:
    scaling = script("scaling")
    points = {"100": {"seconds_min": 3.0}, "200": {"seconds_min": 5.0}, "400": {"seconds_min": 9.0}}
    assert scaling.extrapolated(points, 10_000) == pytest.approx(201)


@pytest.mark.parametrize("numbers", [["5"], ["5", "3"], ["0", "1"], ["2", "2"]])
def test_numbers_must_ascend(script: Script, numbers: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        script("scaling").parse_arguments(["--slices", *numbers])
    assert "--slices takes two or more numbers" in capsys.readouterr().err
