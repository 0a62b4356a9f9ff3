# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

Script = Callable[[str], ModuleType]


def test_a_tiny_run(script: Script, thin_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model", str(thin_model), "--image-size", "84", "--dpam-start", "2", "--batch-sizes", "1", "3"]
    options += ["--repeats", "2", "--threads", str(torch.get_num_threads()), "--precision", "float32", "bfloat16"]
    assert script("inference").main([*options, "--json", str(tmp_path / "out.json")]) == 0
    record: dict[str, Any] = json.loads((tmp_path / "out.json").read_text())
    assert set(record["figures"]) == {"float32", "bfloat16"}
    printed = capsys.readouterr().out
    for precision, one in record["figures"].items():
        assert f"\n{precision}" in printed
        assert one["ceiling_tflops"] > 0
        for batch, row in one["batches"].items():
            ours, plain = row["dual_path"], row["published"]
            assert ours["images_per_s"] == pytest.approx(int(batch) / ours["seconds_median"])
            assert ours["images_per_s_spread"][0] <= ours["images_per_s"] <= ours["images_per_s_spread"][1]
            ratio = row["plain_over_ours"]
            assert ratio["ratio"] == pytest.approx(plain["seconds_median"] / ours["seconds_median"])
            assert ratio["ratio_least"] <= ratio["ratio"] <= ratio["ratio_most"]
            assert row["of_ceiling"] == pytest.approx(row["tflops"] / one["ceiling_tflops"])


def test_counted_work_is_that_of_the_layers(script: Script, thin_model: Path) -> None:
    options = ["--model", str(thin_model), "--image-size", "84", "--dpam-start", "9", "--batch-sizes", "2"]
    inference = script("inference")
    parsed = inference.parse_arguments([*options, "--repeats", "1", "--precision", "float32"])
    figures = inference.measure(parsed, "float32")
    tokens, width, embed = 37, 64, 16
    blocks = 4 * tokens * 2 * width * width * (3 + 1 + 8)
    attention = 4 * 4 * tokens * tokens * width
    patches = 36 * 2 * 3 * 14 * 14 * width
    expected = (blocks + attention + patches + 2 * tokens * width * embed) / 1e12
    assert figures["batches"]["2"]["tflop_per_image"] == pytest.approx(expected, rel=0.01)


def test_what_compiling_gives(
    script: Script, thin_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch, "compile", lambda call: call)  # compiling takes minutes
    options = ["--model", str(thin_model), "--image-size", "84", "--batch-sizes", "1", "--repeats", "1", "--compile"]
    assert script("inference").main([*options, "--precision", "float32"]) == 0
    printed = capsys.readouterr().out
    assert "torch.compile: 0 s, then" in printed
    assert "pays after" in printed or "does not pay" in printed
