# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib
import json
import statistics
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("export")


def test_a_tiny_run(
    benchmark: ModuleType, thin_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, threads = tmp_path / "figures.json", torch.get_num_threads()
    arguments = [
        "--model",
        str(thin_model),
        "--image-size",
        "56",
        "--dpam-start",
        "2",
        "--repeats",
        "2",
        "--ways",
        "float32",
        "bfloat16",
        "int8",
    ]
    assert benchmark.main([*arguments, "--threads", str(threads), "--output", str(output)]) == 0
    shown = capsys.readouterr().out
    record: dict[str, Any] = json.loads(output.read_text())
    assert record["setup"]["image_size"] == 56
    figures = record["figures"]
    assert list(figures) == ["float32", "bfloat16", "int8"]
    for way, one in figures.items():
        assert way in shown
        assert 0 < one["seconds_per_image_min"] <= one["seconds_per_image_median"] <= one["seconds_per_image_max"]
        assert one["times_faster_least"] <= one["times_faster"] <= one["times_faster_most"]
    assert figures["float32"]["times_faster"] == 1
    off = {way: one["difference_from_float32"]["map_max"] for way, one in figures.items()}
    assert off["float32"] == 0
    assert 1e-5 < off["int8"] < 0.5
    assert figures["int8"]["file_mib"] > 0


def test_ratios_are_of_pairs(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0, 8.0])  # slow, fast, then fast, slow
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: next(clock))
    image = torch.zeros(2, 3, 4, 4)
    seconds = benchmark.measure_times({"slow": lambda _: None, "fast": lambda _: None}, image, 2)
    assert seconds == {"slow": [1.0, 2.0], "fast": [0.5, 0.5]}
    assert statistics.median(s / f for s, f in zip(*seconds.values(), strict=True)) == 3


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--help"], 0, "examples:"),
        (["--repeats", "0"], 2, "--repeats"),
        (["--model", "other.json"], 2, "needs --image-size and --dpam-start"),
        (["--output", __file__], 2, "exists; give another name"),
        (["--device", "cuda:7"], 2, "no GPU"),
    ],
)
def test_arguments(
    benchmark: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
    said: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as left:
        benchmark.main(arguments)
    assert left.value.code == status
    assert said in "".join(capsys.readouterr())


def test_tensorrt_script_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    script = importlib.import_module("compile_tensorrt")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (tmp_path / "model.pt2").write_text("")
    for arguments, said in (([str(tmp_path / "model.pt2")], "no GPU"), (["absent.pt2"], "there is no absent.pt2")):
        with pytest.raises(SystemExit) as left:
            script.main(arguments)
        assert left.value.code == 2
        assert said in capsys.readouterr().err
