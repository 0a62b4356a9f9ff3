# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("metrics")


def test_a_tiny_run(metrics: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "figures.json"
    options = ["--count", "6", "--size", "64", "--repeats", "2", "--stream", "0", "--no-memory"]
    assert metrics.main([*options, "--json", str(output)]) == 0
    printed = capsys.readouterr().out
    record: dict[str, Any] = json.loads(output.read_text())
    assert record["setup"]["count"] == 6
    figures = record["figures"]
    assert set(figures) == {"published", "exact", "thresholds_200", "histogram"}
    for way, one in figures.items():
        assert f"\n{way}" in printed
        assert 0 < one["seconds_min"] <= one["seconds_median"] <= one["seconds_max"]
        ratio = figures["published"]["seconds_median"] / one["seconds_median"]
        assert one["times_faster"] == pytest.approx(ratio)
        assert one["times_faster_least"] <= one["times_faster"] <= one["times_faster_most"]
    assert figures["thresholds_200"]["difference_from_published"] < 1e-9
    difference = abs(figures["histogram"]["value"] - figures["exact"]["value"])
    assert difference <= figures["histogram"]["error_bound"]


def test_stream_and_memory(metrics: ModuleType) -> None:
    one = metrics.stream(20, 64, "cpu")
    assert one["maps"] == 20
    assert 0 < one["value"] < 1
    assert one["peak_mib"] > 10
    assert metrics.memory_over_input("exact", 3, 64) >= 0


def test_maps_are_like_a_networks(metrics: ModuleType) -> None:
    maps, masks = metrics.make_maps(10, 96)
    assert maps.shape == masks.shape == (10, 1, 96, 96)
    assert (maps.dtype, masks.dtype) == (torch.float32, torch.uint8)
    assert 0 < maps.min() < maps.max() < 1
    assert masks.flatten(1).any(dim=1).sum() == 6
    assert maps[masks == 1].mean() > maps[masks == 0].mean() + 0.1
    again, _ = metrics.make_maps(10, 96)
    np.testing.assert_array_equal(again, maps)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--help"], 0, "examples:"),
        (["--count", "0"], 2, "--count"),
        (["--json", __file__], 2, "exists; give another name"),
        (["--device", "cuda:7"], 2, "no GPU"),
    ],
)
def test_arguments(
    metrics: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
    said: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as left:
        metrics.main(arguments)
    assert left.value.code == status
    assert said in "".join(capsys.readouterr())
